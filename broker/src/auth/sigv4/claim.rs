//! What a request says of its signature, in the `Authorization` header or in the query.
//!
//! All reading of text is in functions of text alone, so that they can be fuzzed.

use super::canonical::decode;
use super::date::{Moment, parse_basic, parse_http};
use super::{ALGORITHM, incomplete, invalid};
use crate::auth::Refusal;
use crate::aws::Code;
use http::HeaderMap;
use http::header::{AUTHORIZATION, DATE};
use http::request::Parts;
use std::fmt;

/// Longest time that a request signed in its query may be good for: a week.
const EXPIRES_S_MAX: u32 = 604_800;

/// Where a signature stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Header,
    Query { expires_s: Option<u32> },
}

/// What a signing key is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) date: String,
    pub(super) region: String,
    pub(super) service: String,
    pub(super) terminator: String,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.date, self.region, self.service, self.terminator)
    }
}

/// What a request says of its signature, complete and well formed.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) form: Form,
    pub(super) key_id: String,
    pub(super) scope: Scope,
    pub(super) signed_headers: String,
    pub(super) signature: String,
    pub(super) moment: Moment,
    /// For want of an `X-Amz-Date`.
    pub(super) dated_by_date_header: bool,
    pub(super) token: Option<String>,
}

/// The parameters of a signature as they are written; what is left out is empty.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parameters {
    algorithm: String,
    credential: String,
    signed_headers: String,
    signature: String,
}

/// Those that only the query form has.
#[derive(Debug, Default, PartialEq, Eq)]
struct QueryParameters {
    parameters: Parameters,
    date: String,
    expires: Option<String>,
    token: Option<String>,
}

impl Claim {
    pub(super) fn of(parts: &Parts) -> Result<Self, Refusal> {
        let query = parts.uri.query().unwrap_or_default();
        match (authorization(&parts.headers), is_signed_query(query)) {
            (Some(_), true) => Err(invalid(
                "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.",
            )),
            (Some(header), false) => Self::of_header(&header, &parts.headers),
            (None, true) => Self::of_query(query_parameters(query)?),
            (None, false) => Err(Refusal {
                code: Code::MissingAuthenticationToken,
                message: "Missing Authentication Token".to_owned(),
            }),
        }
    }

    fn of_header(header: &str, headers: &HeaderMap) -> Result<Self, Refusal> {
        let text = |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let (amz_date, date) = (text("x-amz-date"), text(DATE.as_str()));
        let parameters = header_parameters(header);
        check_header_complete(&parameters, amz_date.is_some() || date.is_some(), header)?;
        let moment = match (&amz_date, &date) {
            (Some(amz_date), _) => moment(amz_date)?,
            (None, date) => {
                let date = date.as_deref().unwrap_or_default();
                parse_http(date).map_or_else(|| moment(date), Ok)?
            }
        };
        let token = text("x-amz-security-token").map(|token| token.into_owned());
        Self::build(Form::Header, parameters, moment, amz_date.is_none(), token)
    }

    fn of_query(query: QueryParameters) -> Result<Self, Refusal> {
        let expires_s = query.expires.as_deref().map(expires).transpose()?;
        let moment = moment(&query.date)?;
        Self::build(Form::Query { expires_s }, query.parameters, moment, false, query.token)
    }

    fn build(
        form: Form,
        parameters: Parameters,
        moment: Moment,
        dated_by_date_header: bool,
        token: Option<String>,
    ) -> Result<Self, Refusal> {
        let Parameters { algorithm, credential, signed_headers, signature } = parameters;
        if algorithm != ALGORITHM {
            return Err(incomplete(format!(
                "Unsupported AWS 'algorithm': '{algorithm}' (only {ALGORITHM})."
            )));
        }
        let (key_id, scope) = key_id_and_scope(&credential)?;
        Ok(Self { form, key_id, scope, signed_headers, signature, moment, dated_by_date_header, token })
    }
}

/// The access key id that a request claims to be signed with, however badly it is formed otherwise.
pub(in crate::auth) fn claimed_key_id(parts: &Parts) -> Option<String> {
    let credential = match authorization(&parts.headers) {
        Some(header) => header_parameters(&header).credential,
        None => query_parameters(parts.uri.query()?).ok()?.parameters.credential,
    };
    credential.split('/').next().filter(|id| !id.is_empty()).map(str::to_owned)
}

fn authorization(headers: &HeaderMap) -> Option<String> {
    let mut values =
        headers.get_all(AUTHORIZATION).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let first = values.next()?.into_owned();
    // a second one would be read as more parameters; then something is there twice
    let all = values.fold(first, |all, value| all + "," + &value);
    (!all.is_empty()).then_some(all)
}

fn is_signed_query(query: &str) -> bool {
    query.split('&').any(|pair| pair.split('=').next() == Some("X-Amz-Algorithm"))
}

/// Reads `ALGORITHM name=value, name=value`. Of a name that is there twice nothing is taken.
fn header_parameters(header: &str) -> Parameters {
    let mut words = header.split([',', ' ', '\t']);
    let mut parameters =
        Parameters { algorithm: words.next().unwrap_or_default().to_owned(), ..Parameters::default() };
    let mut seen = [0u8; 3];
    for (name, value) in words.filter_map(|word| word.split_once('=')) {
        let (place, field) = match name {
            "Credential" => (0, &mut parameters.credential),
            "SignedHeaders" => (1, &mut parameters.signed_headers),
            "Signature" => (2, &mut parameters.signature),
            _ => continue,
        };
        *field = if seen[place] == 0 { value.to_owned() } else { String::new() };
        seen[place] = 1;
    }
    parameters
}

fn check_header_complete(parameters: &Parameters, dated: bool, header: &str) -> Result<(), Refusal> {
    let needs = |name: &str| format!("Authorization header requires '{name}' parameter. ");
    let mut message = String::new();
    for (name, value) in [
        ("Credential", &parameters.credential),
        ("Signature", &parameters.signature),
        ("SignedHeaders", &parameters.signed_headers),
    ] {
        if value.is_empty() {
            message += &needs(name);
        }
    }
    if !dated {
        message += "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ";
    }
    if message.is_empty() {
        return Ok(());
    }
    // what was sent is told, but no more of it than helps
    let shown: String = header.chars().take(1024).collect();
    Err(incomplete(format!("{message}Authorization={shown}")))
}

/// Reads the query form. Of a name that is there twice nothing is taken.
fn query_parameters(query: &str) -> Result<QueryParameters, Refusal> {
    let find = |wanted: &str| {
        let mut values = query.split('&').filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (name == wanted).then_some(value)
        });
        let value = values.next()?;
        values.next().is_none().then(|| String::from_utf8_lossy(&decode(value)).into_owned())
    };
    let needed = |name: &str| find(name).unwrap_or_default();
    let parameters = Parameters {
        algorithm: needed("X-Amz-Algorithm"),
        credential: needed("X-Amz-Credential"),
        signed_headers: needed("X-Amz-SignedHeaders"),
        signature: needed("X-Amz-Signature"),
    };
    let date = needed("X-Amz-Date");
    let mut message = String::new();
    for (name, value) in [
        ("Algorithm", &parameters.algorithm),
        ("Credential", &parameters.credential),
        ("Signature", &parameters.signature),
        ("SignedHeaders", &parameters.signed_headers),
        ("Date", &date),
    ] {
        if value.is_empty() {
            message += &format!("AWS query-string parameters must include 'X-Amz-{name}'. ");
        }
    }
    if !message.is_empty() {
        return Err(incomplete(message + "Re-examine the query-string parameters."));
    }
    Ok(QueryParameters {
        parameters,
        date,
        expires: find("X-Amz-Expires"),
        token: find("X-Amz-Security-Token"),
    })
}

fn expires(text: &str) -> Result<u32, Refusal> {
    match text.parse::<u32>() {
        Ok(seconds @ 1..=EXPIRES_S_MAX) => Ok(seconds),
        _ => Err(incomplete(format!("X-Amz-Expires must be a number of seconds from 1 to {EXPIRES_S_MAX}."))),
    }
}

fn moment(text: &str) -> Result<Moment, Refusal> {
    let bad = || {
        incomplete(format!("Date must be in ISO-8601 'basic format', as in 20240102T030405Z. Got '{text}'."))
    };
    parse_basic(text).ok_or_else(bad)
}

fn key_id_and_scope(credential: &str) -> Result<(String, Scope), Refusal> {
    let parts: Vec<&str> = credential.split('/').collect();
    let &[key_id, date, region, service, terminator] = parts.as_slice() else {
        return Err(incomplete(format!(
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got \
             '{credential}'"
        )));
    };
    let scope = Scope {
        date: date.to_owned(),
        region: region.to_owned(),
        service: service.to_owned(),
        terminator: terminator.to_owned(),
    };
    Ok((key_id.to_owned(), scope))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use proptest::prelude::*;

    const SCOPE: &str = "AKID/20240102/us-east-1/kinesis/aws4_request";

    fn parts(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::post(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn refused(uri: &str, headers: &[(&str, &str)]) -> (Code, String) {
        let refusal = Claim::of(&parts(uri, headers)).unwrap_err();
        (refusal.code, refusal.message)
    }

    #[test]
    fn the_header_is_read_with_commas_and_with_spaces() {
        for between in [", ", ",", " "] {
            let header = ["SignedHeaders=host", &format!("Credential={SCOPE}"), "Signature=00"].join(between);
            let header = format!("AWS4-HMAC-SHA256 {header}");
            let headers = [("authorization", header.as_str()), ("x-amz-date", "20240102T030405Z")];
            let claim = Claim::of(&parts("/", &headers)).unwrap();
            assert_eq!((claim.key_id.as_str(), claim.scope.date.as_str()), ("AKID", "20240102"));
            assert_eq!((claim.signed_headers.as_str(), claim.signature.as_str()), ("host", "00"));
            assert_eq!((claim.form, claim.dated_by_date_header), (Form::Header, false));
            assert_eq!(claimed_key_id(&parts("/", &headers)).unwrap(), "AKID");
        }
    }

    #[test]
    fn the_query_is_read() {
        let uri = "/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKID%2F20240102%2Fr%2Fkinesis%2Faws4_request\
                   &X-Amz-Date=20240102T030405Z&X-Amz-SignedHeaders=host%3Bx&X-Amz-Signature=00&X-Amz-Expires=60\
                   &X-Amz-Security-Token=a%2Bb";
        let claim = Claim::of(&parts(uri, &[])).unwrap();
        assert_eq!((claim.key_id.as_str(), claim.signed_headers.as_str()), ("AKID", "host;x"));
        assert_eq!(claim.form, Form::Query { expires_s: Some(60) });
        assert_eq!(claim.token.as_deref(), Some("a+b"));
        assert_eq!(claimed_key_id(&parts(uri, &[])).unwrap(), "AKID");
        for bad in ["0", "-1", "604801", "x", ""] {
            let uri = uri.replace("Expires=60", &format!("Expires={bad}"));
            assert!(refused(&uri, &[]).1.starts_with("X-Amz-Expires"), "{bad}");
        }
    }

    #[test]
    fn both_forms_or_none_are_refused_in_the_words_of_aws() {
        assert_eq!(
            refused("/?X-Amz-Algorithm=x", &[("authorization", "x")]),
            (
                Code::InvalidSignature,
                "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header."
                    .into()
            )
        );
        let missing = (Code::MissingAuthenticationToken, "Missing Authentication Token".into());
        assert_eq!(refused("/", &[]), missing);
        assert_eq!(refused("/?a=b", &[("authorization", "")]), missing);
    }

    #[test]
    fn an_incomplete_header_is_told_what_it_lacks() {
        assert_eq!(
            refused("/", &[("authorization", "Bearer x")]),
            (
                Code::IncompleteSignature,
                "Authorization header requires 'Credential' parameter. Authorization header requires 'Signature' \
                 parameter. Authorization header requires 'SignedHeaders' parameter. Authorization header requires \
                 existence of either a 'X-Amz-Date' or a 'Date' header. Authorization=Bearer x"
                    .into()
            )
        );
        let header = format!("AWS4-HMAC-SHA256 Credential={SCOPE}, SignedHeaders=host");
        let dated = ("date", "Tue, 02 Jan 2024 03:04:05 GMT");
        assert_eq!(
            refused("/", &[("authorization", &header), dated]).1,
            format!("Authorization header requires 'Signature' parameter. Authorization={header}")
        );
        let twice = format!("{header}, Signature=0, Credential={SCOPE}");
        let told = refused("/", &[("authorization", &twice), dated]).1;
        assert!(told.starts_with("Authorization header requires 'Credential' parameter. Auth"), "{told}");
    }

    #[test]
    fn an_incomplete_query_is_told_what_it_lacks() {
        assert_eq!(
            refused("/?X-Amz-Algorithm", &[]),
            (
                Code::IncompleteSignature,
                "AWS query-string parameters must include 'X-Amz-Algorithm'. AWS query-string parameters must include \
                 'X-Amz-Credential'. AWS query-string parameters must include 'X-Amz-Signature'. AWS query-string \
                 parameters must include 'X-Amz-SignedHeaders'. AWS query-string parameters must include 'X-Amz-Date'. \
                 Re-examine the query-string parameters."
                    .into()
            )
        );
    }

    #[test]
    fn other_algorithms_dates_and_credentials_are_refused() {
        let with =
            |header: String, date: &str| refused("/", &[("authorization", &header), ("x-amz-date", date)]).1;
        let date = "20240102T030405Z";
        let rest = "SignedHeaders=host, Signature=00";
        let told = with(format!("AWS4-HMAC-SHA512 Credential={SCOPE}, {rest}"), date);
        assert!(told.starts_with("Unsupported AWS 'algorithm': 'AWS4-HMAC-SHA512'"), "{told}");
        let told = with(format!("{ALGORITHM} Credential={SCOPE}, {rest}"), "2024-01-02");
        assert!(told.starts_with("Date must be in ISO-8601"), "{told}");
        for credential in ["AKID", "AKID/20240102/r/kinesis", &format!("{SCOPE}/x")] {
            let told = with(format!("{ALGORITHM} Credential={credential}, {rest}"), date);
            assert!(told.starts_with("Credential must have exactly 5"), "{told}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_readers(text in "(AWS4-HMAC-SHA256 |X-Amz-[A-Z][a-z]{3,9}=|[%=&,/; ]|\\PC){0,20}") {
            let _ = (header_parameters(&text), query_parameters(&text), is_signed_query(&text));
            let _ = (key_id_and_scope(&text), expires(&text), moment(&text));
        }
    }
}
