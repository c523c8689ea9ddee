"""What real images the strategies select, and what a selection costs."""
