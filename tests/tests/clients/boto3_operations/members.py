"""No member of an input or output shape is unhandled: by what the broker does, compared with botocore's model.

An input member is read if a value of the wrong type is noticed. An output member is answered if a reply of some check had
it; those that are deliberately never answered are listed, and fail when they come after all.
"""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[4]

# paths that no reply has, and why
NOT_ANSWERED = {
    "DescribeStreamSummary.StreamDescriptionSummary.StreamId": "the model reserves it; without one clients go by name",
}
# paths that only time brings, and the test that moves it
ANSWERED_LATER = {
    f"{operation}.MinimumThroughputBillingCommitment.EndedAt": (
        "broker/src/aws/tests/account.rs",
        "a_commitment_is_made_and_taken_back",
    )
    for operation in ("DescribeAccountSettings", "UpdateAccountSettings")
}
# the family that comes later, and until then answers that it is not offered
LATER = ("Queue", "Channel")


def operations(kinesis):
    """The models of the operations that are offered."""
    model = kinesis.client.meta.service_model
    names = [name for name in model.operation_names if not any(word in name for word in LATER)]
    assert len(names) == 40, names
    return [model.operation_model(name) for name in names]


def inputs(shape, path=""):
    """Each member of an input, and a request in which only that one is of the wrong type."""
    for name, inner in (shape.members if shape else {}).items():
        yield from wrong(inner, f"{path}.{name}", lambda value, name=name: {name: value})


def wrong(shape, path, around):
    """Wrong values of a shape and of what lies within."""
    if shape.type_name in ("structure", "list", "map"):
        yield path, around(True)
    else:
        yield path, around([])
    if shape.type_name == "structure":
        for name, inner in shape.members.items():
            yield from wrong(inner, f"{path}.{name}", lambda value, name=name: around({name: value}))
    elif shape.type_name == "list":
        yield from wrong(shape.member, f"{path}[]", lambda value: around([value]))
    elif shape.type_name == "map":
        yield from wrong(shape.value, f"{path}{{}}", lambda value: around({"k": value}))


def outputs(shape, path):
    """Paths of all members of an output; exceptions within an event stream are errors, not members."""
    if shape is None:
        return
    if shape.type_name == "list":
        yield from outputs(shape.member, path)
    elif shape.type_name == "structure":
        for name, inner in shape.members.items():
            if not inner.metadata.get("exception"):
                yield f"{path}.{name}"
                yield from outputs(inner, f"{path}.{name}")


def problems(kinesis):
    """What is not as it should be, a line each."""
    for name in kinesis.client.meta.service_model.operation_names:
        if any(word in name for word in LATER):
            status, reply = kinesis.raw(name, {})
            if status != 400 or name not in reply.get("message", ""):
                yield f"{name} is not offered, and was answered with {status} {reply}"
    for model in operations(kinesis):
        for path, body in inputs(model.input_shape):
            status, reply = kinesis.raw(model.name, body)
            if status != 400 or reply.get("__type") != "SerializationException":
                yield f"{model.name} does not read {path}: {body} was answered with {status} {reply}"
        for path in outputs(model.output_shape, model.name):
            if path in NOT_ANSWERED:
                if path in kinesis.seen:
                    yield f"{path} is answered; take it from the list of those that are not"
            elif path in ANSWERED_LATER:
                file, test = ANSWERED_LATER[path]
                if f"fn {test}(" not in (ROOT / file).read_text(encoding="utf-8"):
                    yield f"{path} is answered by {test}, which is not in {file}"
            elif path not in kinesis.seen:
                yield f"{path} was answered by no operation of these checks"
