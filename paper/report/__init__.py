"""The tables and figures of the paper, from finished runs and stores: ours, and the paper's beside.

One module a table or figure; each is left out, with a line that says why, where what it is made of
was not given.

==========  ========================================  =========================================
module      what                                      made of
==========  ========================================  =========================================
results     every recipe and store: a line each       runs
table1      Anchors, cResNet, FA-cResNet by codec     runs; bits per pixel from stores
table2      costs, measured here                      networks; times of codecs from a file
table3      ablations of FA-cResNet                   runs
figure2     nonzero values of each channel of y_hat   stores of latents
figure5     one image through every codec        stores of latents and of pixels
figure6     accuracy against bits per pixel           runs
figure7     accuracy against bpp, PSNR, MS-SSIM       runs; stores of pixels
==========  ========================================  =========================================

``runs`` reads runs, ``groups`` averages their seeds, ``stores`` reads what stores say of codecs,
``timing`` measures networks, ``captions`` says what was measured on what, ``tables`` and
``pictures`` write files, ``page`` writes report.md.
"""
