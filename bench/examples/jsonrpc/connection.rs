//! One HTTP connection that stays open.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::AnyError;

/// A connection to a server.
pub(crate) struct Connection {
    host: String,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, AnyError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // What fails there fails the next request, too.
        tokio::spawn(connection);
        Ok(Self { host: address.to_string(), sender })
    }

    /// Posts a body and returns the whole answer.
    pub(crate) async fn post(&mut self, body: Bytes) -> Result<Bytes, AnyError> {
        let request = Request::post("/")
            .header(header::HOST, &self.host)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?.into_body().collect().await?.to_bytes())
    }

    /// Calls a method.
    pub(crate) async fn call(&mut self, method: &str, params: Value) -> Result<Value, AnyError> {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer = self.post(serde_json::to_vec(&request)?.into()).await?;
        result(serde_json::from_slice(&answer)?)
    }

    /// Calls a method with many parameters, some at a time, and returns the results in their order.
    pub(crate) async fn call_all(
        &mut self,
        method: &str,
        params: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<Value>, AnyError> {
        let params: Vec<_> = params.into_iter().collect();
        let mut results = Vec::with_capacity(params.len());
        for part in params.chunks(100) {
            let request = |(id, params): (usize, &Value)| json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
            let batch: Vec<_> = part.iter().enumerate().map(request).collect();
            let answer = self.post(serde_json::to_vec(&batch)?.into()).await?;
            let mut answers: Vec<Value> = serde_json::from_slice(&answer)?;
            answers.sort_by_key(|answer| answer["id"].as_u64());
            for answer in answers {
                results.push(result(answer)?);
            }
        }
        match results.len() == params.len() {
            true => Ok(results),
            false => Err("a batch was not answered whole".into()),
        }
    }
}

/// The result in an answer.
pub(crate) fn result(mut answer: Value) -> Result<Value, AnyError> {
    match answer.get_mut("result") {
        Some(result) => Ok(result.take()),
        None => Err(format!("refused: {answer}").into()),
    }
}
