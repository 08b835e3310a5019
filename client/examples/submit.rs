//! Submits one transfer of the native runtime: `submit CA.pem [ADDRESS]`.

use std::error::Error;
use std::time::{SystemTime, UNIX_EPOCH};

use parsec_client::{Client, ClientConfig};
use parsec_protocol::transport::tls::Trust;
use parsec_runtimes::native::{self, Program};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let ca = arguments.next().ok_or("name the file with the CA's certificate")?;
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:7100".to_owned());
    let config = ClientConfig::new(vec![address.parse()?], Trust::load(ca.as_ref())?);
    let client = Client::connect(config).await?;

    // A transaction executes once however often it is submitted; the salt makes it another one.
    let salt = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    let (alice, bob) = (native::key("alice")?, native::key("bob")?);
    let program = Program::new().add(&alice, 100).transfer(&alice, &bob, 30);
    let receipt = client.submit_one(program.into_transaction(salt)).await?;
    println!("{} at {}: {:?}", receipt.id, receipt.position, receipt.outcome);
    Ok(())
}
