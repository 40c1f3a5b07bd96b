"""Resource policies of streams and consumers."""

import json

from support import ACCOUNT, INVALID, absent_arn, refused


def policy(arn, action, account="999999999999"):
    """A policy that lets another account act."""
    statement = {
        "Sid": "other",
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{account}:root"},
        "Action": action,
        "Resource": arn,
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def resources(kinesis):
    """A stream and a consumer, each with an action that its policy may allow."""
    stream = kinesis.arn(kinesis.stream())
    register = {"StreamARN": stream, "ConsumerName": "reader"}
    consumer = kinesis.client.register_stream_consumer(**register)["Consumer"]["ConsumerARN"]
    return [(stream, "kinesis:PutRecord"), (consumer, "kinesis:SubscribeToShard")]


# covers: PutResourcePolicy success
# covers: GetResourcePolicy success
# covers: DeleteResourcePolicy success
def check_policies_are_put_read_and_deleted(kinesis):
    client = kinesis.client
    for arn, action in resources(kinesis):
        for account in ("999999999999", "888888888888"):
            given = policy(arn, action, account)
            client.put_resource_policy(ResourceARN=arn, Policy=given)
            found = client.get_resource_policy(ResourceARN=arn)["Policy"]
            assert json.loads(found) == json.loads(given), found
        client.delete_resource_policy(ResourceARN=arn)
        refused("ResourceNotFoundException", client.get_resource_policy, ResourceARN=arn)


# covers: PutResourcePolicy validation not-found
# covers: GetResourcePolicy validation not-found
# covers: DeleteResourcePolicy validation not-found
def check_policies_are_judged(kinesis):
    client, loose = kinesis.client, kinesis.loose
    [(arn, action), _] = resources(kinesis)
    put = client.put_resource_policy
    for bad in ("no JSON", "{}", policy(arn, "s3:GetObject"), policy(arn, "kinesis:Fly")):
        refused(INVALID, put, ResourceARN=arn, Policy=bad)
    good = {"Policy": policy(arn, action)}
    calls = [
        (put, loose.put_resource_policy, good),
        (client.get_resource_policy, loose.get_resource_policy, {}),
        (client.delete_resource_policy, loose.delete_resource_policy, {}),
    ]
    for call, unchecked, more in calls:
        refused("ValidationException", unchecked, **more)
        refused("ValidationException", call, ResourceARN="arn:aws:s3:::bucket", **more)
        refused("ResourceNotFoundException", call, ResourceARN=absent_arn(), **more)
    refused("ResourceNotFoundException", client.get_resource_policy, ResourceARN=arn)
    assert ACCOUNT in arn
