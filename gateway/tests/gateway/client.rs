//! A client that sends just what it is told to, over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use parsec_gateway::{Gateway, GatewayConfig, Methods};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::fake::Fake;

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) fake: Arc<Fake>,
    pub(crate) gateway: Gateway,
}

/// An answer over HTTP.
pub(crate) struct HttpAnswer {
    pub(crate) status: u16,
    pub(crate) headers: String,
    pub(crate) body: String,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let fake = Fake::new();
        let mut config = GatewayConfig::new(([127, 0, 0, 1], 0).into());
        change(&mut config);
        let (chain, backend) = (Arc::clone(&fake.chain), Arc::clone(&fake));
        let gateway = Gateway::start(config, chain, backend, extra()).await.unwrap();
        Self { fake, gateway }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.gateway.address()
    }

    /// Sends the text of an HTTP request, and takes the answer.
    pub(crate) async fn http(&self, head: &str, body: &[u8]) -> HttpAnswer {
        let mut stream = TcpStream::connect(self.address()).await.unwrap();
        let head = format!(
            "{head}\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // The server may have heard enough before all was said.
        drop(stream.write_all(body).await);
        let mut text = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut text)).await;
        drop(read.expect("an answer in time"));
        let text = String::from_utf8(text).unwrap();
        let (headers, body) = text.split_once("\r\n\r\n").expect("headers");
        let status = headers.split(' ').nth(1).unwrap().parse().unwrap();
        HttpAnswer { status, headers: headers.to_lowercase(), body: body.into() }
    }

    /// Posts a body and takes the JSON that comes back.
    pub(crate) async fn post(&self, body: impl AsRef<[u8]>) -> Value {
        let answer = self.http("POST / HTTP/1.1\r\ncontent-type: application/json", body.as_ref());
        let answer = answer.await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        match answer.body.is_empty() {
            true => Value::Null,
            false => serde_json::from_str(&answer.body).unwrap(),
        }
    }

    async fn ask(&self, method: &str, params: Value) -> Value {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let mut answer = self.post(request.to_string()).await;
        assert_eq!(answer["jsonrpc"], "2.0");
        assert_eq!(answer["id"], 1);
        answer.take()
    }

    /// Calls a method that must succeed.
    pub(crate) async fn call(&self, method: &str, params: Value) -> Value {
        let mut answer = self.ask(method, params.clone()).await;
        assert!(answer.get("error").is_none(), "{method} {params}: {answer}");
        answer["result"].take()
    }

    /// Calls a method that must fail: code and message.
    pub(crate) async fn refusal(&self, method: &str, params: Value) -> (i64, String) {
        let error = self.error(method, params).await;
        (error["code"].as_i64().unwrap(), error["message"].as_str().unwrap().into())
    }

    pub(crate) async fn error(&self, method: &str, params: Value) -> Value {
        let mut answer = self.ask(method, params.clone()).await;
        assert!(answer.get("result").is_none(), "{method} {params}: {answer}");
        answer["error"].take()
    }

    pub(crate) async fn websocket(&self) -> Socket {
        let stream = TcpStream::connect(self.address()).await.unwrap();
        let (socket, _) = tokio_tungstenite::client_async("ws://localhost/", stream).await.unwrap();
        Socket { socket, next_id: 0 }
    }
}

fn extra() -> Methods {
    let mut methods = Methods::new();
    methods.add("extra_double", async |(number,): (u64,)| Ok(2 * number));
    methods
}

pub(crate) struct Socket {
    socket: WebSocketStream<TcpStream>,
    next_id: u64,
}

impl Socket {
    pub(crate) async fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// The next message; nothing if there is none for a while.
    pub(crate) async fn next_within(&mut self, wait: Duration) -> Option<Value> {
        loop {
            let message = tokio::time::timeout(wait, self.socket.next()).await.ok()?;
            match message?.ok()? {
                Message::Text(text) => return Some(serde_json::from_str(&text).unwrap()),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    pub(crate) async fn next(&mut self) -> Value {
        self.next_within(PATIENCE).await.expect("a message")
    }

    /// Calls a method; the answer must come before any notification.
    pub(crate) async fn call(&mut self, method: &str, params: Value) -> Value {
        self.next_id += 1;
        let id = self.next_id;
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        self.send(&request.to_string()).await;
        let answer = self.next().await;
        assert_eq!(answer["id"], id, "{answer}");
        answer
    }

    pub(crate) async fn subscribe(&mut self, params: Value) -> Value {
        let mut answer = self.call("eth_subscribe", params).await;
        assert!(answer["result"].is_string(), "{answer}");
        answer["result"].take()
    }

    /// The next notification, which must be of that subscription.
    pub(crate) async fn told(&mut self, subscription: &Value) -> Value {
        let mut message = self.next().await;
        assert_eq!(message["method"], "eth_subscription", "{message}");
        assert_eq!(&message["params"]["subscription"], subscription);
        message["params"]["result"].take()
    }
}
