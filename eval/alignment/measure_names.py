"""What is measured, in words and numbers that tables and figures need without torch."""

TURNS_DEG = (0, 45, 90, 135, 180, 225, 270, 315)  # of the sound against the picture
PERCENT = ("avsa_bin", "avc_bin", "own_view", "turn_lowers", "auc")  # how measures begin that are shares
