"""The built-in contracts with scenes, judged on right programs and on wrong ones."""
