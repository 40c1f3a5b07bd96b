//! The rules of access, one by one.

use super::super::check_policy;
use super::super::{Identity, Verified};
use super::*;
use proptest::prelude::*;
use std::sync::Arc;

const OWNER: &str = "111111111111";
const OTHER: &str = "222222222222";
const STREAM: &str = "arn:aws:kinesis:us-east-1:111111111111:stream/orders-1";
const CONSUMER: &str = "arn:aws:kinesis:us-east-1:111111111111:stream/orders-1/consumer/c:1700000000";

fn account(text: &str) -> AccountId {
    AccountId::new(text).unwrap()
}

fn statement(effect: Effect, actions: &[&str], streams: &[&str]) -> Statement {
    let patterns = |texts: &[&str]| texts.iter().map(|text| Pattern::new(text)).collect();
    Statement { effect, actions: patterns(actions), streams: patterns(streams) }
}

fn caller(of: &str, statements: &[Statement]) -> Verified {
    Verified(Arc::new(Identity {
        account: account(of),
        principal: format!("arn:aws:iam::{of}:user/app"),
        expires: None,
        grants: Grants::Statements(statements.into()),
    }))
}

fn ask(caller: &Verified, action: &str, resource: &str, policy: Option<&str>) -> Decision {
    decide(caller, action, resource, &account(OWNER), policy)
}

fn policy(effect: &str, principal: &str, action: &str) -> String {
    format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Sid":"s","Effect":"{effect}","Principal":{principal},
            "Action":"{action}","Resource":"{STREAM}"}}]}}"#
    )
}

fn message(decision: Decision) -> String {
    match decision {
        Decision::Denied(message) => message,
        other => panic!("not denied: {other:?}"),
    }
}

#[test]
fn a_credential_without_policies_may_nothing_and_is_told_so_in_aws_words() {
    assert_eq!(
        message(ask(&caller(OWNER, &[]), "kinesis:PutRecord", STREAM, None)),
        "User: arn:aws:iam::111111111111:user/app is not authorized to perform: kinesis:PutRecord on resource: \
         arn:aws:kinesis:us-east-1:111111111111:stream/orders-1 because no identity-based policy allows the \
         kinesis:PutRecord action"
    );
}

#[test]
fn statements_allow_by_action_and_stream() {
    let orders = caller(OWNER, &[statement(Effect::Allow, &["kinesis:Put*"], &["orders-?"])]);
    assert_eq!(ask(&orders, "kinesis:PutRecords", STREAM, None), Decision::Allowed);
    message(ask(&orders, "kinesis:GetRecords", STREAM, None));
    message(ask(
        &orders,
        "kinesis:PutRecord",
        "arn:aws:kinesis:us-east-1:111111111111:stream/orders-12",
        None,
    ));
    message(ask(&orders, "kinesis:ListStreams", "*", None));
    let by_arn =
        caller(OWNER, &[statement(Effect::Allow, &["KINESIS:*"], &["arn:aws:kinesis:*:stream/orders-*"])]);
    assert_eq!(ask(&by_arn, "kinesis:GetRecords", STREAM, None), Decision::Allowed);
    let all = caller(OWNER, &[statement(Effect::Allow, &["*"], &["*"])]);
    assert_eq!(ask(&all, "kinesis:ListStreams", "*", None), Decision::Allowed);
}

#[test]
fn a_name_is_never_matched_against_the_rest_of_an_arn() {
    let resource = |of: &str, name: &str| format!("arn:aws:kinesis:us-east-1:{of}:stream/{name}");
    for pattern in
        ["*stream*", "a*", "*kinesis*", "*1111*", "*us-east*", "*/*", "*:*", "?*arn*", "*consumer*", "*s:*"]
    {
        let some = caller(OWNER, &[statement(Effect::Allow, &["*"], &[pattern])]);
        for asked in [&resource(OWNER, "orders"), CONSUMER, &resource(OTHER, "orders"), "*"] {
            message(ask(&some, "kinesis:PutRecord", asked, None));
        }
    }
    for (pattern, name, allowed) in [
        ("*stream*", "my-stream-1", true),
        ("*stream*", "secret", false),
        ("**", "secret", true),
        ("s?cret", "secret", true),
        ("arn:*", "secret", true),
        ("arn:aws:kinesis:*:222222222222:stream/*", "secret", false),
        ("arn:aws:kinesis:*:111111111111:stream/secret", "secret", true),
    ] {
        let some = caller(OWNER, &[statement(Effect::Allow, &["*"], &[pattern])]);
        let decision = ask(&some, "kinesis:PutRecord", &resource(OWNER, name), None);
        assert_eq!(decision == Decision::Allowed, allowed, "{pattern} {name}");
    }
}

#[test]
fn a_consumer_is_covered_by_its_stream() {
    for streams in ["orders-1", STREAM, "arn:aws:kinesis:us-east-1:111111111111:stream/orders-1/consumer/*"] {
        let reader = caller(OWNER, &[statement(Effect::Allow, &["kinesis:SubscribeToShard"], &[streams])]);
        assert_eq!(ask(&reader, "kinesis:SubscribeToShard", CONSUMER, None), Decision::Allowed, "{streams}");
    }
    let other = caller(OWNER, &[statement(Effect::Allow, &["kinesis:*"], &["c*"])]);
    message(ask(&other, "kinesis:SubscribeToShard", CONSUMER, None));
}

#[test]
fn an_explicit_deny_wins_wherever_it_stands() {
    let allow = statement(Effect::Allow, &["*"], &["*"]);
    let deny = statement(Effect::Deny, &["kinesis:Delete*"], &["orders-*"]);
    let both = caller(OWNER, &[deny.clone(), allow.clone()]);
    let told = message(ask(&both, "kinesis:DeleteStream", STREAM, None));
    assert!(told.ends_with("with an explicit deny in an identity-based policy"), "{told}");
    assert_eq!(ask(&both, "kinesis:PutRecord", STREAM, None), Decision::Allowed);
    let all = caller(OWNER, &[allow]);
    let told =
        message(ask(&all, "kinesis:PutRecord", STREAM, Some(&policy("Deny", "\"*\"", "kinesis:Put*"))));
    assert!(told.ends_with("with an explicit deny in a resource-based policy"), "{told}");
}

#[test]
fn what_the_policy_of_a_stream_denies_is_denied_to_its_consumers_and_what_it_allows_is_not_theirs() {
    let consumer: ConsumerArn = CONSUMER.parse().unwrap();
    let (own, other) = (Verified::anyone_of(account(OWNER)), Verified::anyone_of(account(OTHER)));
    let ask = |caller: &Verified, action: &str, policy: Option<&str>, of_stream: Option<&str>| {
        decide_for_consumer(caller, action, &consumer, policy, of_stream)
    };
    let subscribe = "kinesis:SubscribeToShard";
    let deny = policy("Deny", "\"*\"", "kinesis:Subscribe*");
    let allow = policy("Allow", "\"*\"", "kinesis:*");
    assert_eq!(ask(&own, subscribe, None, None), Decision::Allowed);
    assert!(message(ask(&own, subscribe, None, Some(&deny))).contains(CONSUMER));
    message(ask(&own, subscribe, None, Some(&deny.replace(STREAM, CONSUMER))));
    assert_eq!(ask(&own, "kinesis:DescribeStreamConsumer", None, Some(&deny)), Decision::Allowed);
    assert_eq!(ask(&other, subscribe, None, Some(&allow)), Decision::Hidden);
    let of_consumer = allow.replace(STREAM, CONSUMER);
    assert_eq!(ask(&other, subscribe, Some(&of_consumer), None), Decision::Allowed);
    message(ask(&other, subscribe, Some(&of_consumer), Some(&deny)));
    let nobody = policy("Deny", "\"*\"", "kinesis:*");
    assert_eq!(ask(&own, "kinesis:PutResourcePolicy", None, Some(&nobody)), Decision::Allowed);
}

#[test]
fn a_partition_does_not_count_wherever_it_is_named() {
    let elsewhere = |text: &str| text.replace("arn:aws:", "arn:aws-cn:");
    let of_resource = Pattern::of_resource(&elsewhere(STREAM));
    assert_eq!(of_resource.as_str(), STREAM);
    let allow = Statement { streams: vec![of_resource], ..statement(Effect::Allow, &["*"], &[]) };
    assert_eq!(ask(&caller(OWNER, &[allow]), "kinesis:PutRecord", STREAM, None), Decision::Allowed);
    let all = caller(OWNER, &[statement(Effect::Allow, &["*"], &["*"])]);
    for principal in ["\"*\"", r#"{"AWS":"arn:aws-cn:iam::111111111111:user/app"}"#] {
        let denied = elsewhere(&policy("Deny", principal, "kinesis:PutRecord"));
        message(ask(&all, "kinesis:PutRecord", STREAM, Some(&denied)));
    }
}

#[test]
fn a_policy_cannot_lock_its_owner_out_of_mending_it() {
    let all = caller(OWNER, &[statement(Effect::Allow, &["*"], &["*"])]);
    let nobody = policy("Deny", "\"*\"", "kinesis:*");
    assert_eq!(ask(&all, "kinesis:DeleteResourcePolicy", STREAM, Some(&nobody)), Decision::Allowed);
    let everyone = Verified::anyone_of(account(OWNER));
    assert_eq!(ask(&everyone, "kinesis:PutResourcePolicy", STREAM, Some(&nobody)), Decision::Allowed);
    message(ask(&everyone, "kinesis:DeleteStream", STREAM, Some(&nobody)));
}

#[test]
fn another_accounts_stream_is_hidden_until_its_policy_knows_the_caller() {
    let all = caller(OTHER, &[statement(Effect::Allow, &["*"], &["*"])]);
    let put = |principal: &str| policy("Allow", principal, "kinesis:PutRecord");
    assert_eq!(ask(&all, "kinesis:PutRecord", STREAM, None), Decision::Hidden);
    for stranger in [
        r#"{"AWS":"333333333333"}"#,
        r#"{"AWS":"arn:aws:iam::222222222222:user/else"}"#,
        r#"{"AWS":"arn:aws:iam::111111111111:user/app"}"#,
    ] {
        assert_eq!(
            ask(&all, "kinesis:PutRecord", STREAM, Some(&put(stranger))),
            Decision::Hidden,
            "{stranger}"
        );
    }
    for known in [
        r#""*""#,
        r#"{"AWS":"*"}"#,
        r#"{"AWS":"222222222222"}"#,
        r#"{"AWS":"arn:aws:iam::222222222222:root"}"#,
        r#"{"AWS":["333333333333","arn:aws:iam::222222222222:user/app"]}"#,
    ] {
        assert_eq!(ask(&all, "kinesis:PutRecord", STREAM, Some(&put(known))), Decision::Allowed, "{known}");
        let told = message(ask(&all, "kinesis:GetRecords", STREAM, Some(&put(known))));
        assert!(
            told.ends_with("because no resource-based policy allows the kinesis:GetRecords action"),
            "{told}"
        );
    }
    // without credentials a caller is its whole account
    let account_only = Verified::anyone_of(account(OTHER));
    let given = put(r#"{"AWS":"222222222222"}"#);
    assert_eq!(ask(&account_only, "kinesis:PutRecord", STREAM, Some(&given)), Decision::Allowed);
    assert_eq!(ask(&account_only, "kinesis:PutRecord", STREAM, None), Decision::Hidden);
}

#[test]
fn across_accounts_the_credential_must_allow_it_too() {
    let none = caller(OTHER, &[]);
    let given = policy("Allow", "\"*\"", "kinesis:*");
    let told = message(ask(&none, "kinesis:PutRecord", STREAM, Some(&given)));
    assert!(told.contains("no identity-based policy"), "{told}");
    // a name alone means the credential's own account
    let by_name = caller(OTHER, &[statement(Effect::Allow, &["*"], &["orders-1"])]);
    message(ask(&by_name, "kinesis:PutRecord", STREAM, Some(&given)));
    let by_arn = caller(OTHER, &[statement(Effect::Allow, &["*"], &[STREAM])]);
    assert_eq!(ask(&by_arn, "kinesis:PutRecord", STREAM, Some(&given)), Decision::Allowed);
}

#[test]
fn within_an_account_a_policy_gives_to_those_it_names() {
    let none = caller(OWNER, &[]);
    let to = |principal: &str| policy("Allow", principal, "kinesis:PutRecord");
    let user = to(r#"{"AWS":"arn:aws:iam::111111111111:user/app"}"#);
    assert_eq!(ask(&none, "kinesis:PutRecord", STREAM, Some(&user)), Decision::Allowed);
    message(ask(&none, "kinesis:PutRecord", STREAM, Some(&to(r#"{"AWS":"111111111111"}"#))));
    message(ask(&none, "kinesis:PutRecord", "arn:aws:kinesis:us-east-1:111111111111:stream/x", Some(&user)));
}

#[test]
fn policies_that_are_not_understood_whole_are_refused_with_the_reason() {
    check_policy(&policy("Allow", "\"*\"", "kinesis:*")).unwrap();
    check_policy(r#"{"Statement":{"Effect":"Allow","Principal":"*","Action":["*"],"Resource":["*"]}}"#)
        .unwrap();
    let with = |element: &str| {
        format!(
            r#"{{"Statement":[{{"Effect":"Allow","Principal":"*","Action":"kinesis:*","Resource":"*",{element}}}]}}"#
        )
    };
    for (text, word) in [
        (String::new(), "JSON"),
        ("[]".to_owned(), "object"),
        ("{}".to_owned(), "at least one Statement"),
        (r#"{"Statement":[]}"#.to_owned(), "at least one Statement"),
        (r#"{"Version":"2020-01-01","Statement":[]}"#.to_owned(), "Version"),
        (r#"{"Rules":1}"#.to_owned(), "Rules"),
        (with(r#""Condition":{}"#), "Condition"),
        (with(r#""NotAction":"x""#), "NotAction"),
        (with(r#""NotPrincipal":"x""#), "NotPrincipal"),
        (with(r#""NotResource":"x""#), "NotResource"),
        (with(r#""Why":"x""#), "Why"),
        (policy("allow", "\"*\"", "kinesis:*"), "Effect"),
        (policy("Allow", "\"me\"", "kinesis:*"), "Principal"),
        (policy("Allow", r#"{"Service":"x"}"#, "kinesis:*"), "Principal"),
        (policy("Allow", r#"{"AWS":"arn:aws:iam::111111111111:user/*"}"#, "kinesis:*"), "Wildcards"),
        (policy("Allow", r#"{"AWS":[]}"#, "kinesis:*"), "AWS"),
        (policy("Allow", "\"*\"", "s3:GetObject"), "another service"),
        (policy("Allow", "\"*\"", "kinesis:PutRecrod"), "does not have"),
        (policy("Allow", "\"*\"", "kinesis:Fly*"), "does not have"),
        (policy("Allow", "\"*\"", "kinesis:*").replace(STREAM, "orders"), "no ARN"),
    ] {
        let told = check_policy(&text).unwrap_err();
        assert!(told.contains(word), "{text}: {told}");
    }
}

/// What a pattern means, spelled out without care for time.
fn matches_slowly(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            matches_slowly(rest, text)
                || text.split_first().is_some_and(|(_, text)| matches_slowly(pattern, text))
        }
        (Some((b'?', rest)), Some((_, text))) => matches_slowly(rest, text),
        (Some((a, rest)), Some((b, text))) if a == b => matches_slowly(rest, text),
        _ => false,
    }
}

fn any_statement() -> impl Strategy<Value = Statement> {
    let effect = prop_oneof![Just(Effect::Allow), Just(Effect::Deny)];
    let actions = prop_oneof![Just("*"), Just("kinesis:Put*"), Just("kinesis:GetRecords")];
    let streams = prop_oneof![Just("*"), Just("orders-*"), Just("else")];
    (effect, actions, streams).prop_map(|(effect, action, stream)| statement(effect, &[action], &[stream]))
}

proptest! {
    #[test]
    fn patterns_mean_what_they_say(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
        let fast = Pattern::new(&pattern).matches(&text);
        prop_assert_eq!(fast, matches_slowly(pattern.as_bytes(), text.as_bytes()));
    }

    #[test]
    fn a_name_pattern_covers_the_streams_of_its_account_whose_names_it_matches(
        pattern in "[a-z:/*?]{1,8}",
        name in "[a-z]{1,8}",
        own in any::<bool>(),
        consumer in any::<bool>(),
    ) {
        prop_assume!(pattern != "*" && !pattern.starts_with("arn:"));
        let (of, tail) = (if own { OWNER } else { OTHER }, if consumer { "/consumer/c:1" } else { "" });
        let resource = format!("arn:aws:kinesis:us-east-1:{of}:stream/{name}{tail}");
        let covers = covers_resource(&Pattern::new(&pattern), &account(OWNER), &resource);
        prop_assert_eq!(covers, own && matches_slowly(pattern.as_bytes(), name.as_bytes()));
    }

    #[test]
    fn order_of_statements_does_not_matter_and_more_denials_never_allow_more(
        statements in proptest::collection::vec(any_statement(), 0..6),
        action in prop_oneof![Just("kinesis:PutRecord"), Just("kinesis:GetRecords")],
    ) {
        let decision = ask(&caller(OWNER, &statements), action, STREAM, None);
        let mut turned = statements.clone();
        turned.reverse();
        prop_assert_eq!(&ask(&caller(OWNER, &turned), action, STREAM, None), &decision);
        let allows = |effect| statements.iter().any(|s| s.effect == effect && s.covers(&account(OWNER), action, STREAM));
        prop_assert_eq!(decision == Decision::Allowed, allows(Effect::Allow) && !allows(Effect::Deny));
    }

    #[test]
    fn any_text_is_a_policy_or_refused_with_a_reason(text in "\\PC{0,60}") {
        if let Err(message) = check_policy(&text) {
            prop_assert!(!message.is_empty());
        }
    }
}
