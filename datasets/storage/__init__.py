"""Where stores are kept: a folder or a bucket, behind one interface; locks."""
