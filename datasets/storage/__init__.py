"""Where stores are kept: a folder, a bucket, a web server, behind one interface; locks."""
