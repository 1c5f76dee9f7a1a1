"""The tables and figures of the paper, from finished runs and stores: ours, and the paper's beside.

Each is left out, with a line that says why, where what it is made of was not given.

===============  ========================================  =====================================
module           what                                      made of
===============  ========================================  =====================================
results          every recipe and store: a line each       runs
table1           Anchors, cResNet, FA-cResNet by codec     runs; bits per pixel from stores
table2           costs, measured here                      networks; times of codecs from a file
table3           ablations of FA-cResNet                   runs
figures_2_and_5  nonzero values of each channel of y_hat;  stores of latents and of pixels
                 one image through every codec
figures_6_and_7  accuracy against bpp, PSNR, MS-SSIM       runs; stores of pixels
===============  ========================================  =====================================

``runs`` reads runs and averages their seeds, ``stores`` adds what stores know of codecs,
``captions`` describes what was measured on what, ``output`` writes files, ``page`` report.md.
"""
