#!/usr/bin/env bash
# The aws command line, unmodified, as people type it.
# Usage: aws_cli.sh AWS ENDPOINT, where AWS is its program. Exits with 0 only if everything was as it should be.
set -euo pipefail

aws=$1 endpoint=$2
export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_DEFAULT_REGION=us-east-1 AWS_MAX_ATTEMPTS=1 AWS_PAGER=
calls=0

kinesis() { "$aws" --endpoint-url "$endpoint" --output text kinesis "$@"; }

fail() {
    echo "$*" >&2
    exit 1
}

# expect WHAT COMMAND...: the command prints exactly that
expect() {
    local wanted=$1 found
    shift
    found=$(kinesis "$@") || fail "aws kinesis $* failed"
    [[ $found == "$wanted" ]] || fail "aws kinesis $*: $wanted was expected, found $found"
    calls=$((calls + 1))
}

# refuse EXCEPTION COMMAND...: the command fails with that exception
refuse() {
    local wanted=$1 found
    shift
    if found=$(kinesis "$@" 2>&1); then
        fail "aws kinesis $*: $wanted was expected, it succeeded: $found"
    fi
    [[ $found == *"($wanted)"* ]] || fail "aws kinesis $*: $wanted was expected: $found"
    calls=$((calls + 1))
}

refuse ResourceNotFoundException describe-stream --stream-name cli
expect "" create-stream --stream-name cli --shard-count 1 --tags team=blue
expect "" wait stream-exists --stream-name cli
refuse ResourceInUseException create-stream --stream-name cli --shard-count 1
expect cli list-streams --query 'StreamNames[?@==`cli`]'
expect $'ACTIVE\t24\t1' describe-stream-summary --stream-name cli \
    --query 'StreamDescriptionSummary.[StreamStatus,RetentionPeriodHours,OpenShardCount]'
expect shardId-000000000000 put-record --stream-name cli --partition-key k --data hello --query ShardId
expect 0 put-records --stream-name cli --query FailedRecordCount \
    --records Data=one,PartitionKey=a Data=two,PartitionKey=b
iterator=$(kinesis get-shard-iterator --stream-name cli --shard-id shardId-000000000000 \
    --shard-iterator-type TRIM_HORIZON --query ShardIterator)
# data comes in base64
expect $'aGVsbG8=\tb25l\tdHdv' get-records --shard-iterator "$iterator" --query 'Records[].Data'
expect "" add-tags-to-stream --stream-name cli --tags cost=7
expect $'cost\t7\nteam\tblue' list-tags-for-stream --stream-name cli --query 'Tags[].[Key,Value]'
expect "" remove-tags-from-stream --stream-name cli --tag-keys team
expect cost list-tags-for-stream --stream-name cli --query 'Tags[].Key'
expect "" increase-stream-retention-period --stream-name cli --retention-period-hours 48
refuse InvalidArgumentException increase-stream-retention-period --stream-name cli --retention-period-hours 24
expect "" split-shard --stream-name cli --shard-to-split shardId-000000000000 \
    --new-starting-hash-key 170141183460469231731687303715884105728
expect $'shardId-000000000000\nshardId-000000000001\nshardId-000000000002' \
    list-shards --stream-name cli --query 'Shards[].[ShardId]'
expect "" merge-shards --stream-name cli --shard-to-merge shardId-000000000001 \
    --adjacent-shard-to-merge shardId-000000000002
expect $'1\t2' update-shard-count --stream-name cli --target-shard-count 2 --scaling-type UNIFORM_SCALING \
    --query '[CurrentShardCount,TargetShardCount]'
expect $'48\t2' describe-stream-summary --stream-name cli \
    --query 'StreamDescriptionSummary.[RetentionPeriodHours,OpenShardCount]'
arn=$(kinesis describe-stream --stream-name cli --query StreamDescription.StreamARN)
expect reader register-stream-consumer --stream-arn "$arn" --consumer-name reader --query Consumer.ConsumerName
expect ACTIVE describe-stream-consumer --stream-arn "$arn" --consumer-name reader \
    --query ConsumerDescription.ConsumerStatus
expect reader list-stream-consumers --stream-arn "$arn" --query 'Consumers[].ConsumerName'
expect "" deregister-stream-consumer --stream-arn "$arn" --consumer-name reader
expect "" delete-stream --stream-name cli
expect "" wait stream-not-exists --stream-name cli
refuse ResourceNotFoundException put-record --stream-name cli --partition-key k --data hello

echo "$("$aws" --version | cut -d' ' -f1): $calls commands did what was expected"
