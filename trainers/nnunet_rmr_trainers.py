# nnU-Net imports every module of the folders in nnUNet_extTrainer and then forgets what it imported from there, so the
# classes must live in an installed package (else they can not be pickled) and only be named here.
