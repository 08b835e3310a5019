//! Requests as they come in, however malformed, and answers as they go out.
//!
//! Only the outline of a request is parsed here; ids and parameters stay the text that they are,
//! so that an id of any kind goes back as it came, and nesting is somebody else's problem. The
//! parser does not recurse into what it skips.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::error::{INVALID_REQUEST, PARSE_ERROR, RpcError};

/// What a client sent: one request or several.
#[derive(Debug)]
pub(crate) enum Message {
    One(Request),
    Batch(Vec<Request>),
}

/// A request, or why it is none.
#[derive(Debug)]
pub(crate) struct Request {
    /// The JSON of its id; none if it wants no answer.
    pub(crate) id: Option<Box<RawValue>>,
    pub(crate) call: Result<Call, RpcError>,
}

/// What a request asks for.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) params: Option<Box<RawValue>>,
}

impl Message {
    /// Reads what a client sent.
    ///
    /// # Errors
    /// If it is no JSON, an empty batch, or a batch of more than `batch_max`.
    pub(crate) fn parse(text: &[u8], batch_max: usize) -> Result<Self, RpcError> {
        let raw: &RawValue = serde_json::from_slice(text)
            .map_err(|error| RpcError::new(PARSE_ERROR, format!("parse error: {error}")))?;
        if !raw.get().trim_start().starts_with('[') {
            return Ok(Self::One(Request::parse(raw)));
        }
        let items: Vec<&RawValue> = serde_json::from_str(raw.get())
            .map_err(|error| RpcError::new(PARSE_ERROR, format!("parse error: {error}")))?;
        match items.len() {
            0 => Err(RpcError::new(INVALID_REQUEST, "empty batch")),
            long if long > batch_max => {
                let message = format!("batch too large: {long} requests, at most {batch_max}");
                Err(RpcError::new(INVALID_REQUEST, message))
            }
            _ => Ok(Self::Batch(items.into_iter().map(Request::parse).collect())),
        }
    }
}

impl Request {
    fn parse(raw: &RawValue) -> Self {
        let null = || Some(RawValue::NULL.to_owned());
        let Ok(Outline(mut fields)) = serde_json::from_str::<Outline<'_>>(raw.get()) else {
            return Self { id: null(), call: Err(invalid("it is no object")) };
        };
        let id = fields.id.take();
        let composite = |id: &&RawValue| id.get().starts_with(['{', '[']);
        if id.is_some_and(|id| composite(&id)) {
            return Self { id: null(), call: Err(invalid("the id is neither text nor number")) };
        }
        let call = fields.call();
        // What is no request at all is answered, even if it has no id.
        let id = id.map(ToOwned::to_owned).or_else(|| call.is_err().then(null).flatten());
        Self { id, call }
    }
}

fn invalid(reason: &str) -> RpcError {
    RpcError::new(INVALID_REQUEST, format!("invalid request: {reason}"))
}

#[derive(Default)]
struct Fields<'a> {
    version: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    method: Option<&'a RawValue>,
    params: Option<&'a RawValue>,
}

impl Fields<'_> {
    fn call(self) -> Result<Call, RpcError> {
        let text = |raw: &RawValue| serde_json::from_str::<String>(raw.get()).ok();
        if self.version.and_then(text).as_deref() != Some("2.0") {
            return Err(invalid("\"jsonrpc\" is not \"2.0\""));
        }
        let method = self.method.ok_or_else(|| invalid("there is no method"))?;
        let method = text(method).ok_or_else(|| invalid("the method is not text"))?;
        Ok(Call { method, params: self.params.map(ToOwned::to_owned) })
    }
}

/// The fields of a request. Of fields that are there twice the last counts, as in geth.
struct Outline<'a>(Fields<'a>);

impl<'de> Deserialize<'de> for Outline<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OutlineVisitor)
    }
}

struct OutlineVisitor;

impl<'de> Visitor<'de> for OutlineVisitor {
    type Value = Outline<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a request")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields::default();
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match &*name {
                "jsonrpc" => fields.version = Some(map.next_value()?),
                "id" => fields.id = Some(map.next_value()?),
                "method" => fields.method = Some(map.next_value()?),
                "params" => fields.params = Some(map.next_value()?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Outline(fields))
    }
}

/// The text of an answer.
pub(crate) fn answer(id: &RawValue, result: &Result<Box<RawValue>, RpcError>) -> String {
    let id = id.get();
    match result {
        Ok(result) => format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{}}}"#, result.get()),
        Err(error) => {
            // Text and JSON values can always be written.
            let error = serde_json::to_string(error).unwrap_or_default();
            format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::error::{INVALID_REQUEST, PARSE_ERROR};

    fn one(text: &str) -> Request {
        match Message::parse(text.as_bytes(), 3).unwrap() {
            Message::One(request) => request,
            Message::Batch(_) => panic!("{text} is no batch"),
        }
    }

    fn refusal(text: &str) -> i32 {
        one(text).call.unwrap_err().code
    }

    #[test]
    fn ids_come_back_as_they_were() {
        for id in
            ["1", "-7", "1.5e300", "123456789012345678901234567890", "\"a\\u00e9\"", "null", "true"]
        {
            let request = one(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"m"}}"#));
            assert_eq!(request.id.unwrap().get(), id);
            assert_eq!(request.call.unwrap().method, "m");
        }
        for id in ["{}", "[1]"] {
            let request = one(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"m"}}"#));
            assert_eq!(request.id.unwrap().get(), "null");
            assert_eq!(request.call.unwrap_err().code, INVALID_REQUEST);
        }
    }

    #[test]
    fn what_is_no_request_is_said_to_be_none() {
        for text in [
            "1",
            "\"text\"",
            "null",
            "{}",
            r#"{"id":1,"method":"m"}"#,
            r#"{"jsonrpc":"1.0","id":1,"method":"m"}"#,
            r#"{"jsonrpc":2.0,"id":1,"method":"m"}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":null}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":["m"]}"#,
        ] {
            assert_eq!(refusal(text), INVALID_REQUEST, "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_a_parse_error() {
        let deep = "[".repeat(100_000);
        let closed = "{\"a\":".repeat(100_000);
        for text in ["", " ", "{", "[1,", "{\"a\" 1}", "\u{0}", "01", "nul", &deep, &closed, "{}{}"]
        {
            let error = Message::parse(text.as_bytes(), 3).unwrap_err();
            assert_eq!(error.code, PARSE_ERROR, "{:.20}", text);
        }
        assert_eq!(Message::parse(b"{\"a\":\"\xff\"}", 3).unwrap_err().code, PARSE_ERROR);
    }

    #[test]
    fn deep_nesting_is_skipped_over() {
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{deep},"x":{deep}}}"#);
        assert_eq!(one(&text).call.unwrap().params.unwrap().get(), deep);
        let Message::Batch(batch) = Message::parse(deep.as_bytes(), 3).unwrap() else { panic!() };
        assert_eq!(batch[0].call.as_ref().unwrap_err().code, INVALID_REQUEST);
    }

    #[test]
    fn of_a_field_that_is_there_twice_the_last_counts() {
        let text =
            r#"{"jsonrpc":"1.0","jsonrpc":"2.0","id":1,"id":2,"method":"a","m\u0065thod":"b"}"#;
        let request = one(text);
        assert_eq!((request.id.unwrap().get(), &*request.call.unwrap().method), ("2", "b"));
    }

    #[test]
    fn notifications_want_no_answer_unless_they_are_none() {
        assert!(one(r#"{"jsonrpc":"2.0","method":"m"}"#).id.is_none());
        assert_eq!(one(r#"{"method":"m"}"#).id.unwrap().get(), "null");
    }

    #[test]
    fn batches_have_limits() {
        let code = |text: &str| Message::parse(text.as_bytes(), 3).unwrap_err().code;
        assert_eq!(code("[]"), INVALID_REQUEST);
        assert_eq!(code("[1,2,3,4]"), INVALID_REQUEST);
        let Message::Batch(batch) = Message::parse(b" [1,{},3]", 3).unwrap() else { panic!() };
        assert!(batch.iter().all(|request| request.call.is_err() && request.id.is_some()));
    }
}
