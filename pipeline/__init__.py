"""Images to store: codecs, and the job that encodes a data set with one.

TensorFlow, tensorflow-compression and Dask live here; torch never does.
"""
