#!/usr/bin/env python3
"""Signs requests with botocore and prints them as botocore.json, which the tests of this folder verify.

    pip install botocore && python3 sign_with_botocore.py > botocore.json

The time stands still, so that the same version of botocore prints the same file.
"""

import base64
import datetime
import json

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from urllib.parse import urlsplit

NOW = datetime.datetime(2024, 1, 2, 3, 4, 5)
ID, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
JSON_TYPE, CBOR_TYPE = "application/x-amz-json-1.1", "application/x-amz-cbor-1.1"

botocore.auth.get_current_datetime = lambda *_, **__: NOW


def sign(name, url, operation, body, content_type=JSON_TYPE, token=None, expires=None, headers=()):
    credentials = Credentials(ID, SECRET, token)
    all_headers = {
        "X-Amz-Target": f"Kinesis_20131202.{operation}",
        "Content-Type": content_type,
        "User-Agent": "aws-cli/1.44",
        **dict(headers),
    }
    request = AWSRequest(method="POST", url=url, data=body, headers=all_headers)
    if expires is None:
        botocore.auth.SigV4Auth(credentials, "kinesis", "us-east-1").add_auth(request)
    else:
        botocore.auth.SigV4QueryAuth(credentials, "kinesis", "us-east-1", expires).add_auth(request)
    prepared = request.prepare()
    sent = urlsplit(prepared.url)
    wire = [["host", sent.netloc]]
    wire += [[key.lower(), value] for key, value in prepared.headers.items()]
    path = sent.path or "/"
    return {
        "name": name,
        "method": "POST",
        "uri": path + ("?" + sent.query if sent.query else ""),
        "headers": wire,
        "body": base64.b64encode(prepared.body or b"").decode(),
        "token": token or "",
    }


LOCAL = "http://localhost:4567/"
PUT = json.dumps({"StreamName": "s", "Data": "aGVsbG8=", "PartitionKey": "ключ"}).encode()
TOKEN = "FwoGZXIvYXdzEDoaD+token/with+signs=="

CASES = [
    sign("list-streams", LOCAL, "ListStreams", b"{}"),
    sign("put-record", LOCAL, "PutRecord", PUT),
    sign("cbor", LOCAL, "PutRecord", bytes(range(256)), CBOR_TYPE),
    sign("session-token", LOCAL, "PutRecord", PUT, token=TOKEN),
    sign("default-port", "http://broker.example/", "ListStreams", b"{}"),
    sign("https", "https://kinesis.us-east-1.amazonaws.com/", "ListStreams", b"{}"),
    sign("ipv6", "http://[::1]:4567/", "ListStreams", b"{}"),
    sign("no-slash", "http://localhost:4567", "ListStreams", b"{}"),
    sign("white-space", LOCAL, "ListStreams", b"{}", headers=[("X-Note", "  a   b\tc  ")]),
    sign("path", "http://localhost:4567/a%20b/./c/../d//e/", "ListStreams", b"{}"),
    sign("query", "http://localhost:4567/?b=2&a=1&a=0&c=%2F%20&d", "ListStreams", b"{}"),
    sign("large", LOCAL, "PutRecords", b'{"Records":[' + b" " * 4000 + b"]}"),
    sign("presigned", LOCAL, "ListStreams", b"{}", expires=60),
    sign("presigned-token", LOCAL, "PutRecord", PUT, token=TOKEN, expires=3600),
    sign("presigned-query", "http://localhost:4567/p?z=%7E&y=a%2Bb", "ListStreams", b"{}", expires=604800),
]
print(json.dumps(CASES, indent=1, ensure_ascii=False))
