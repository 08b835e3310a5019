//! One HTTP request.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue,
    ORIGIN, VARY, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::value::RawValue;

use super::{Connection, Server, websocket};
use crate::rpc::{INVALID_REQUEST, RpcError, answer as answer_text};

/// Types of content that are JSON.
const JSON_TYPES: [&str; 3] =
    ["application/json", "application/json-rpc", "application/jsonrequest"];
const JSON: HeaderValue = HeaderValue::from_static("application/json");

type Answer = Response<Full<Bytes>>;

/// Answers a request.
pub(super) async fn answer(
    server: Arc<Server>,
    connection: Connection,
    request: Request<Incoming>,
) -> Answer {
    let origin = request.headers().get(ORIGIN).cloned();
    let allowed = match &origin {
        Some(origin) => {
            let allowed = origin.to_str().ok().and_then(|origin| server.allowed(origin));
            let allowed = allowed.and_then(|allowed| HeaderValue::from_str(allowed).ok());
            match allowed {
                Some(allowed) => Some(allowed),
                None => return refused(StatusCode::FORBIDDEN, "the origin is not allowed"),
            }
        }
        None => None,
    };
    let mut answer = answer_any(server, connection, request).await;
    if let Some(allowed) = allowed {
        allow(answer.headers_mut(), allowed);
    }
    answer
}

/// Tells a browser that the page may see the answer.
fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(VARY, HeaderValue::from_static("Origin"));
}

async fn answer_any(
    server: Arc<Server>,
    connection: Connection,
    request: Request<Incoming>,
) -> Answer {
    if request.method() == Method::OPTIONS {
        return preflight();
    }
    let authorization = request.headers().get(AUTHORIZATION);
    if let Some(auth) = &server.auth
        && let Err(error) = auth.check(authorization.map(HeaderValue::as_bytes))
    {
        let mut answer = refused(StatusCode::UNAUTHORIZED, &error.to_string());
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return answer;
    }
    match *request.method() {
        Method::GET if websocket::is_upgrade(request.headers()) => {
            websocket::upgrade(server, connection, request)
        }
        // So that one can see that somebody is there.
        Method::GET | Method::HEAD => Response::new(Full::default()),
        Method::POST => post(&server, request).await,
        _ => refused(StatusCode::METHOD_NOT_ALLOWED, "use POST, or WebSocket"),
    }
}

/// The answer to a browser that asks whether a page may ask. Its origin has been checked.
fn preflight() -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    let text = HeaderValue::from_static;
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, text("GET, POST"));
    // What a page's libraries add for themselves is ignored, so it does no harm; `*` leaves out
    // authorization.
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, text("authorization, content-type, *"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, text("7200"));
    headers.insert("access-control-allow-private-network", text("true"));
    answer
}

async fn post(server: &Server, request: Request<Incoming>) -> Answer {
    if !is_json(request.headers()) {
        let message = "the content type must be application/json";
        return refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
    }
    let limits = server.dispatcher.limits();
    let most = limits.request_bytes_max;
    let too_large = || {
        let message = format!("content length too large: at most {most} bytes");
        refused(StatusCode::PAYLOAD_TOO_LARGE, &message)
    };
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if announced.and_then(|length| length.parse().ok()).is_some_and(|length: usize| length > most) {
        return too_large();
    }
    let body = Limited::new(request.into_body(), most).collect();
    let text = match tokio::time::timeout(limits.transfer_time_max, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => return too_large(),
        Ok(Err(_)) => return refused(StatusCode::BAD_REQUEST, "the request broke off"),
        Err(_) => return refused(StatusCode::REQUEST_TIMEOUT, "the request took too long"),
    };
    // A notification has an empty answer.
    let answer = server.dispatcher.answer(&text, None).await.unwrap_or_default();
    json(StatusCode::OK, answer)
}

/// Whether the content is said to be JSON, or not said to be anything.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return true };
    let kind = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    JSON_TYPES.iter().any(|json| kind.trim().eq_ignore_ascii_case(json))
}

fn json(status: StatusCode, text: String) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, JSON);
    answer
}

/// An answer that is an error, in HTTP and in JSON-RPC.
fn refused(status: StatusCode, message: &str) -> Answer {
    let error = RpcError::new(INVALID_REQUEST, message);
    json(status, answer_text(RawValue::NULL, &Err(error)))
}
