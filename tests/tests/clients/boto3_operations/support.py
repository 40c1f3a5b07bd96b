"""What the checks share: clients that note which members replies had, streams of one's own, and errors that must come.

A reply is compared with botocore's model as it arrives: a member that the model does not have is a failure at once; those
that it has are noted, and `members.py` tells in the end which never came.
"""

import http.client
import itertools
import json
import urllib.parse

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

ACCOUNT = "123456789012"
REGION = "us-east-1"
SECRET = "test"
# either says that the request is wrong; which of them it is, is for the tests of each operation's words
INVALID = ("InvalidArgumentException", "ValidationException")
# errors that an operation may answer with although the model does not list them
COMMON = {"ValidationException", "SerializationException", "AccessDeniedException"}


class Kinesis:
    """A broker as boto3 sees it."""

    _names = itertools.count(1)

    def __init__(self, endpoint, seen):
        self.endpoint = endpoint
        self.seen = seen
        # as users have it, and one that sends what botocore would refuse to send
        self.client = self._connect(checks=True)
        self.loose = self._connect(checks=False)

    def _connect(self, checks):
        config = Config(
            retries={"total_max_attempts": 1},
            connect_timeout=5,
            read_timeout=30,
            parameter_validation=checks,
        )
        client = boto3.client(
            "kinesis",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=ACCOUNT,
            aws_secret_access_key=SECRET,
            config=config,
        )
        client.meta.events.register("after-call.kinesis", self._note)
        return client

    def _note(self, http_response, parsed, model, **_):
        if http_response.status_code == 200 and model.output_shape and not model.has_event_stream_output:
            self.note(model, json.loads(http_response.content))

    def note(self, model, reply):
        """Notes every member of a reply, by its path."""
        self._walk(model.name, model.output_shape, reply)

    def note_event(self, event):
        """Notes the members of an event of SubscribeToShard."""
        model = self.client.meta.service_model.operation_model("SubscribeToShard")
        self._walk(model.name, model.output_shape, {"EventStream": event})

    def _walk(self, path, shape, value):
        if shape.type_name == "structure":
            for name, inner in value.items():
                assert name in shape.members, f"the model knows no {path}.{name}"
                assert inner is not None, f"{path}.{name} is null instead of absent"
                self.seen.add(f"{path}.{name}")
                self._walk(f"{path}.{name}", shape.members[name], inner)
            missing = [name for name in shape.required_members if name not in value]
            # an event without more data has no continuation at the end of a shard
            assert missing in ([], ["ContinuationSequenceNumber"]), f"{path} lacks {missing}: {value}"
        elif shape.type_name == "list":
            for inner in value:
                self._walk(path, shape.member, inner)

    def name(self):
        """A name that no other check uses."""
        return f"boto3-operations-{next(self._names)}"

    def stream(self, shards=1, **more):
        """A stream of one's own, by name; active."""
        name = self.name()
        if "StreamModeDetails" not in more:
            more["ShardCount"] = shards
        self.client.create_stream(StreamName=name, **more)
        self.client.get_waiter("stream_exists").wait(
            StreamName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 10}
        )
        return name

    def on_demand(self, **more):
        """The same in on-demand mode."""
        return self.stream(StreamModeDetails={"StreamMode": "ON_DEMAND"}, **more)

    def summary(self, stream):
        """What DescribeStreamSummary tells."""
        return self.client.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]

    def arn(self, stream):
        """Its ARN."""
        return self.summary(stream)["StreamARN"]

    def iterator(self, stream, kind="TRIM_HORIZON", shard="shardId-000000000000", **more):
        """A shard iterator."""
        reply = self.client.get_shard_iterator(
            StreamName=stream, ShardId=shard, ShardIteratorType=kind, **more
        )
        return reply["ShardIterator"]

    def raw(self, operation, body):
        """A request as no client would send it: status and decoded reply."""
        at = urllib.parse.urlsplit(self.endpoint)
        headers = {
            "content-type": "application/x-amz-json-1.1",
            "x-amz-target": f"Kinesis_20131202.{operation}",
        }
        request = AWSRequest("POST", f"{self.endpoint}/", headers=headers, data=json.dumps(body))
        SigV4Auth(Credentials(ACCOUNT, SECRET), "kinesis", REGION).add_auth(request)
        connection = http.client.HTTPConnection(at.hostname, at.port, timeout=30)
        connection.request("POST", "/", body=request.data, headers=dict(request.headers))
        reply = connection.getresponse()
        text = reply.read()
        connection.close()
        return reply.status, json.loads(text) if text else None


def absent_arn(name="absent"):
    """The ARN of a stream that is not there."""
    return f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{name}"


def refused(code, call, **arguments):
    """Asserts that a call is refused with `code`, or one of several; gives the message."""
    codes = (code,) if isinstance(code, str) else code
    operation = call.__self__.meta.method_to_api_mapping[call.__name__]
    try:
        call(**arguments)
    except ClientError as error:
        told = error.response["Error"]
        assert told["Code"] in codes, f"{operation}: {codes} was expected: {error}"
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 400, error.response
        assert told["Message"], f"{operation}: an error tells what happened: {error.response}"
        model = call.__self__.meta.service_model.operation_model(operation)
        modelled = {shape.name for shape in model.error_shapes} | COMMON
        assert told["Code"] in modelled, f"{operation} has no error {told['Code']}"
        return told["Message"]
    raise AssertionError(f"{operation}: {codes} was expected, the call succeeded: {arguments}")
