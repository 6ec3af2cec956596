# SPDX-License-Identifier: Apache-2.0
"""Makes a bucket of MinIO that takes so many bytes: `quota.py ENDPOINT REGION BUCKET BYTES`.

The credentials are in the environment.
"""

import json
import sys

import boto3
import botocore.auth
import botocore.awsrequest
import botocore.httpsession


def main():
    endpoint, region, bucket, most = sys.argv[1:]
    session = boto3.Session(region_name=region)
    session.client("s3", endpoint_url=endpoint).create_bucket(Bucket=bucket)
    url = f"{endpoint}/minio/admin/v3/set-bucket-quota?bucket={bucket}"
    body = json.dumps({"quota": int(most), "size": int(most), "quotatype": "hard"})
    request = botocore.awsrequest.AWSRequest("PUT", url, data=body.encode())
    botocore.auth.S3SigV4Auth(session.get_credentials(), "s3", region).add_auth(request)
    answer = botocore.httpsession.URLLib3Session().send(request.prepare())
    assert answer.status_code == 200, (answer.status_code, answer.content)


if __name__ == "__main__":
    main()
