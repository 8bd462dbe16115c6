"""SFDA (Liu, Zhang, Wang, CVPR 2021) and its parts."""
