# Two images, as there are two environments (README, Install):
#   docker build --target pipeline -t latentset-pipeline .    images -> store
#   docker build --target train    -t latentset-train .       store -> classifier
FROM python:3.11-slim AS pipeline
WORKDIR /latentset
COPY . .
RUN pip install --no-cache-dir '.[encode,cluster,s3,hub]'
# As the library itself does before it imports TensorFlow: faster and bit-exact (docs/encoding.md).
ENV TF_ENABLE_ONEDNN_OPTS=1
WORKDIR /work
ENTRYPOINT ["latentset"]

FROM python:3.11-slim AS train
WORKDIR /latentset
COPY . .
RUN pip install --no-cache-dir '.[train,s3,http,hub,torchdata]'
WORKDIR /work
ENTRYPOINT ["latentset"]
