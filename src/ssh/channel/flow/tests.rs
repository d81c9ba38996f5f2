//! What a queue promises to its reader, its writer and the budgets.

use super::*;

fn budgets(process: usize) -> Budgets {
    let budget = |limit| Arc::new(Budget::new(limit));
    Budgets { process: budget(process), connection: budget(4 << 20), spool: budget(128 << 20) }
}

async fn read_all(flow: &Flow) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(batch) = flow.next().await {
        batch.iter().for_each(|piece| all.extend_from_slice(piece));
    }
    all
}

#[tokio::test]
async fn what_goes_in_comes_out_over_memory_and_disk() {
    let budgets = budgets(16 << 20);
    let flow = Flow::new(budgets.clone(), Box::new(|| false));
    flow.set_overflow(Overflow::Spill(std::env::current_dir().unwrap().join("target")));
    let sent: Vec<u8> = (0..8_000_000_u32).map(|n| (n / 3).to_le_bytes()[0]).collect();
    let sizes = [1, 7, 32_768, 4_096, 4_095, 60_000];
    let mut rest = &sent[..];
    for size in sizes.iter().cycle() {
        let (piece, after) = rest.split_at((*size).min(rest.len()));
        flow.push(Bytes::copy_from_slice(piece)).await;
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    flow.finish(End::Eof);
    assert!(flow.state().spooled > 6_000_000, "a megabyte stays in memory, the rest lies on disk");
    assert!(read_all(&flow).await == sent);
    assert_eq!((budgets.process.used(), budgets.connection.used(), budgets.spool.used()), (0, 0, 0));
}

#[tokio::test]
async fn tiny_pieces_cost_what_they_hold() {
    let flow = Flow::new(budgets(16 << 20), Box::new(|| false));
    for _ in 0..500_000 {
        flow.push(Bytes::from_static(b"x")).await;
    }
    assert!(flow.state().charged < 600_000);
}

#[tokio::test]
async fn without_a_disk_the_pump_stops_and_goes_on() {
    let flow = Flow::new(budgets(16 << 20), Box::new(|| false));
    let pump = {
        let flow = Arc::clone(&flow);
        crate::tasks::spawn(async move {
            for _ in 0..100 {
                flow.push(vec![7; 32_768].into()).await;
            }
            flow.finish(End::Eof);
        })
    };
    sleep(Duration::from_millis(300)).await;
    assert!(flow.stopped_since().is_some());
    assert!(flow.state().charged <= CHANNEL_MEMORY);
    assert_eq!(read_all(&flow).await.len(), 100 * 32_768);
    pump.await.unwrap();
    assert!(flow.stopped_since().is_none());
}

#[tokio::test]
async fn a_busy_program_that_nobody_waits_for_gets_nothing_from_disk() {
    let flow = Flow::new(budgets(16 << 20), Box::new(|| false));
    let folder = std::env::current_dir().unwrap().join("target");
    flow.set_overflow(Overflow::SpillIfStuck(folder, Waiting::default()));
    let pump = {
        let flow = Arc::clone(&flow);
        crate::tasks::spawn(async move {
            for _ in 0..40 {
                flow.push(vec![7; 32_768].into()).await;
            }
            flow.finish(End::Eof);
        })
    };
    sleep(2 * SPILL_AFTER).await;
    assert!(flow.stopped_since().is_some() && flow.state().spooled == 0);
    assert_eq!(read_all(&flow).await.len(), 40 * 32_768);
    pump.await.unwrap();
}

#[tokio::test]
async fn a_stopped_pump_notices_that_the_client_is_gone() {
    let flow = Flow::new(budgets(16 << 20), Box::new(|| true));
    for _ in 0..40 {
        flow.push(vec![7; 32_768].into()).await;
    }
    assert_eq!(flow.end(), End::Gone);
}

#[tokio::test]
async fn a_used_up_process_still_lets_everybody_go_on() {
    let budgets = budgets(1 << 10);
    budgets.process.take_anyway(1 << 10);
    let flow = Flow::new(budgets, Box::new(|| false));
    flow.push(vec![1; 32_768].into()).await;
    assert_eq!(flow.next().await.unwrap()[0].len(), 32_768);
}
