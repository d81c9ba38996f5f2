//! Faults on request, for the tests that show what they do not do. Not part of release builds.

use std::sync::Arc;

use super::connection::Connection;

/// Whether this is the name of a fault: a panic in the loop of the connection, or in a task of it, or a leak.
pub fn fault_if_asked(name: &str, connection: &Arc<Connection>) -> bool {
    match name {
        "myelin-panic" => panic!("asked to"),
        "myelin-panic-task" => {
            connection.spawn(async { panic!("asked to") });
        }
        "myelin-leak" => {
            std::mem::forget(vec![1_u8; 96 << 20]);
        }
        _ => return false,
    }
    true
}

/// What the kernel says to a program that is started where none may be; `None` if this is not the name of that fault.
pub async fn forbidden_start(name: &str) -> Option<String> {
    let start = || match std::process::Command::new("/bin/true").status() {
        Ok(status) => format!("started: {status}\n"),
        Err(error) => format!("refused: {:?}\n", error.kind()),
    };
    match name {
        "myelin-exec" => Some(start()),
        "myelin-exec-aside" => Some(crate::tasks::aside(start).await.unwrap_or_default()),
        _ => None,
    }
}
