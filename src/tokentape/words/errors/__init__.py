"""What is refused, in Chinese: a file for each room, English form and Chinese form side by side."""
