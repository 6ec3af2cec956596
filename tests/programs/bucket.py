# SPDX-License-Identifier: Apache-2.0
"""The S3 client of others: `bucket.py ENDPOINT REGION BUCKET FOLDER` copies a bucket into a folder.

An object whose key ends in a slash becomes a directory. The credentials are in the environment.
"""

import pathlib
import sys

import boto3


def main():
    endpoint, region, bucket, folder = sys.argv[1:]
    client = boto3.client("s3", endpoint_url=endpoint, region_name=region)
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for found in page.get("Contents", []):
            key = found["Key"]
            path = pathlib.Path(folder, key)
            if key.endswith("/"):
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, key, str(path))


if __name__ == "__main__":
    main()
