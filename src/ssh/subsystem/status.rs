//! `myelin-status`: what `myelin firmware status --json` prints, for whoever pushes updates.

use crate::firmware::status::Status;
use crate::ssh::channel::{Exit, Session};
use crate::tasks::aside;

pub async fn run(session: Session) {
    let config = session.settings.config.clone();
    // It reads disks, and may ask a program for the serial number.
    let collected = aside(move || serde_json::to_string(&Status::collect(&config))).await;
    let output = session.output();
    session.flow.discard();
    let exit = match collected {
        Ok(Ok(json)) => {
            output.stdout(format!("{json}\n").into()).await;
            Exit::Status(0)
        }
        Ok(Err(error)) => {
            output.stderr(format!("myelin: cannot tell the status: {error}\n").into()).await;
            Exit::Status(1)
        }
        Err(error) => {
            output.stderr(format!("myelin: cannot tell the status: {error}\n").into()).await;
            Exit::Status(1)
        }
    };
    output.finish(exit).await;
}
