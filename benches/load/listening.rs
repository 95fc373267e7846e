//! The log of a gateway on its stderr.

use std::io::BufRead;
use std::net::SocketAddr;
use std::sync::mpsc;

/// Waits in a thread for the address it listens on, and passes its warnings on.
pub(crate) fn listening(
    said: impl BufRead + Send + 'static,
    warn: impl Fn(&str) + Send + 'static,
) -> mpsc::Receiver<SocketAddr> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut address = None;
        for line in said.lines().map_while(Result::ok) {
            let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            match event["message"].as_str() {
                Some("listening") => address = event["address"].as_str().map(str::to_owned),
                Some("boldgate is ready") => {
                    let address = address.as_ref().and_then(|text| text.parse().ok());
                    // The receiver is gone if the line came too late; that is no error.
                    let _ = address.map(|address| sender.send(address));
                }
                _ if event["severity"] == "INFO" => {}
                _ => warn(&line),
            }
        }
    });
    receiver
}
