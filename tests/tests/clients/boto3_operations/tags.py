"""Tags, by both of their interfaces: of streams by name, of anything by ARN."""

from support import INVALID, absent_arn, refused

FULL = ("LimitExceededException", "InvalidArgumentException")


def many(first, count):
    return {f"key-{number:02}": str(number) for number in range(first, first + count)}


def shown(tags):
    return [{"Key": key, "Value": tags[key]} for key in sorted(tags)]


# covers: AddTagsToStream success
# covers: ListTagsForStream success
# covers: RemoveTagsFromStream success
def check_tags_of_a_stream_are_added_listed_and_removed(kinesis):
    name, client = kinesis.stream(), kinesis.client
    client.add_tags_to_stream(StreamName=name, Tags={"b": "2", "a": "1"})
    client.add_tags_to_stream(StreamARN=kinesis.arn(name), Tags={"c": "", "a": "changed é _./=+-@%"})
    listed = client.list_tags_for_stream(StreamName=name)
    assert [tag["Key"] for tag in listed["Tags"]] == ["a", "b", "c"] and not listed["HasMoreTags"], listed
    assert listed["Tags"][0]["Value"] == "changed é _./=+-@%", listed
    page = client.list_tags_for_stream(StreamName=name, Limit=2)
    assert page["HasMoreTags"] and len(page["Tags"]) == 2, page
    rest = client.list_tags_for_stream(StreamName=name, ExclusiveStartTagKey="b")
    assert [tag["Key"] for tag in rest["Tags"]] == ["c"], rest
    client.remove_tags_from_stream(StreamName=name, TagKeys=["a", "unknown"])
    left = client.list_tags_for_resource(ResourceARN=kinesis.arn(name))["Tags"]
    assert left == [{"Key": "b", "Value": "2"}, {"Key": "c", "Value": ""}], left


# covers: AddTagsToStream validation not-found wrong-state
def check_a_stream_has_at_most_50_tags(kinesis):
    name, add = kinesis.stream(), kinesis.client.add_tags_to_stream
    add(StreamName=name, Tags=many(0, 50))
    refused(FULL, add, StreamName=name, Tags={"one": "too many"})
    add(StreamName=name, Tags={"key-00": "changed"})
    refused("ValidationException", add, StreamName=name, Tags={"k" * 129: ""})
    refused("ValidationException", add, StreamName=name, Tags={"k": "v" * 257})
    refused("ValidationException", kinesis.loose.add_tags_to_stream, StreamName=name)
    refused("InvalidArgumentException", add, StreamName=name, Tags={"aws:reserved": ""})
    refused("InvalidArgumentException", add, StreamName=name, Tags={"k": "a;b"})
    refused("ResourceNotFoundException", add, StreamName="absent", Tags={"k": ""})


# covers: ListTagsForStream validation not-found
# covers: RemoveTagsFromStream validation not-found
def check_tags_belong_to_a_stream(kinesis):
    name, client, loose = kinesis.stream(), kinesis.client, kinesis.loose
    refused("ValidationException", loose.list_tags_for_stream, StreamName=name, Limit=51)
    refused("ValidationException", loose.list_tags_for_stream, StreamName=name, Limit=0)
    refused("ResourceNotFoundException", client.list_tags_for_stream, StreamName="absent")
    refused("ValidationException", loose.remove_tags_from_stream, StreamName=name, TagKeys=[])
    refused("ValidationException", loose.remove_tags_from_stream, StreamName=name)
    refused("ResourceNotFoundException", client.remove_tags_from_stream, StreamName="absent", TagKeys=["k"])


# covers: TagResource success
# covers: ListTagsForResource success
# covers: UntagResource success
def check_streams_and_consumers_are_tagged_by_arn(kinesis):
    name, client = kinesis.stream(), kinesis.client
    stream = kinesis.arn(name)
    register = {"StreamARN": stream, "ConsumerName": "reader"}
    consumer = client.register_stream_consumer(**register)["Consumer"]["ConsumerARN"]
    for arn in (stream, consumer):
        client.tag_resource(ResourceARN=arn, Tags={"b": "2", "a": arn[-6:].replace(":", "")})
        tags = {"b": "2", "a": arn[-6:].replace(":", "")}
        assert client.list_tags_for_resource(ResourceARN=arn)["Tags"] == shown(tags)
        client.untag_resource(ResourceARN=arn, TagKeys=["a", "unknown"])
        assert client.list_tags_for_resource(ResourceARN=arn)["Tags"] == shown({"b": "2"})
    assert client.list_tags_for_stream(StreamName=name)["Tags"] == shown({"b": "2"})


# covers: TagResource validation not-found wrong-state
# covers: ListTagsForResource validation not-found
# covers: UntagResource validation not-found
def check_tags_by_arn_judge_their_input(kinesis):
    client, loose, arn = kinesis.client, kinesis.loose, kinesis.arn(kinesis.stream())
    client.tag_resource(ResourceARN=arn, Tags=many(0, 50))
    refused(FULL, client.tag_resource, ResourceARN=arn, Tags={"one": "too many"})
    refused(INVALID, client.tag_resource, ResourceARN=arn, Tags={"aws:reserved": ""})
    calls = [
        (client.tag_resource, loose.tag_resource, {"Tags": {"k": "v"}}),
        (client.untag_resource, loose.untag_resource, {"TagKeys": ["k"]}),
        (client.list_tags_for_resource, loose.list_tags_for_resource, {}),
    ]
    for call, unchecked, more in calls:
        refused("ValidationException", unchecked, **more)
        refused("ValidationException", call, ResourceARN="arn:aws:s3:::bucket", **more)
        refused("ResourceNotFoundException", call, ResourceARN=absent_arn(), **more)
        gone = f"{arn}/consumer/absent:1700000000"
        refused("ResourceNotFoundException", call, ResourceARN=gone, **more)
