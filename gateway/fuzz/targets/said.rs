//! What a stranger says: messages of a socket, the query of a URL, addresses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pushy_gateway::ways::message::Incoming;
use pushy_gateway::ways::query::Query;
use pushy_gateway::who::address::Network;

fuzz_target!(|text: &str| {
    let _ = serde_json::from_str::<Incoming>(text);
    let _ = Query::read(text);
    let _ = Network::read(text);
    let _ = pushy_gateway::settings::read_duration(text);
});
