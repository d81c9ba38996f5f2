//! Tests of the responder: its packets are read with the reader of `message.rs`, which has its own below.

use super::super::message::{A, AAAA, ANY, Data, Name, PTR, SRV, TXT};
use super::super::records::label;
use super::*;

const MS: Duration = Duration::from_millis(1);
const FACTS: [(&str, &str); 2] = [("myelin", "0.1"), ("product", "box")];

fn interface(index: u32, address: &str) -> Interface {
    let addresses = vec![(address.parse().unwrap(), 24), ("fe80::1".parse().unwrap(), 64)];
    Interface { index, name: format!("eth{index}"), addresses }
}

fn responder(address: &str) -> (Responder, Instant) {
    let mut responder = Responder::new(Identity::new("box", 22, &FACTS), 42);
    let now = Instant::now();
    responder.set_interfaces(&[interface(1, address)], now);
    (responder, now)
}

/// Lets time go by until nothing is due; the packets with their times.
fn run(responder: &mut Responder, now: &mut Instant) -> Vec<(Instant, Message)> {
    let mut sent = Vec::new();
    while let Some(at) = responder.deadline() {
        *now = at;
        for packet in responder.act(at) {
            assert_eq!((packet.to, packet.ipv4, packet.ipv6), (None, true, true));
            sent.push((at, Message::parse(&packet.bytes).unwrap()));
        }
    }
    sent
}

fn settled(address: &str) -> (Responder, Instant) {
    let (mut responder, mut now) = responder(address);
    run(&mut responder, &mut now);
    // No longer held back by the announcement.
    (responder, now + 5 * RECORD_INTERVAL)
}

fn query(name: &[&str], kind: u16, unicast: bool) -> Message {
    let question = Question { name: Name::new(name), kind, unicast };
    Message { questions: vec![question], ..Message::default() }
}

fn neighbour() -> SocketAddr {
    "10.0.0.9:5353".parse().unwrap()
}

const SSH: &[&str] = &["_ssh", "_tcp", "local"];
const HOST: &[&str] = &["box", "local"];
const INSTANCE: &[&str] = &["box", "_ssh", "_tcp", "local"];

fn kinds(records: &[Record]) -> Vec<u16> {
    records.iter().map(|record| record.data.kind()).collect()
}

#[test]
fn it_probes_three_times_and_announces_twice() {
    let (mut responder, mut now) = responder("10.0.0.5");
    let began = now;
    let sent = run(&mut responder, &mut now);
    assert!(sent[0].0 - began < 250 * MS);
    let gaps: Vec<Duration> = sent.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert_eq!(gaps, [250 * MS, 250 * MS, 250 * MS, 1000 * MS]);
    for (number, (_, probe)) in sent[..3].iter().enumerate() {
        assert!(!probe.response && probe.questions.iter().all(|asked| asked.kind == ANY));
        assert!(probe.questions.iter().all(|asked| asked.unicast == (number == 0)));
        assert_eq!(kinds(&probe.authorities), [SRV, TXT, A, AAAA]);
        assert!(probe.authorities.iter().all(|record| !record.flush));
    }
    for (_, told) in &sent[3..] {
        assert!(told.response && told.questions.is_empty());
        assert_eq!(kinds(&told.answers), [PTR, PTR, SRV, TXT, A, AAAA]);
        let flushed: Vec<bool> = told.answers.iter().map(|record| record.flush).collect();
        assert_eq!(flushed, [false, false, true, true, true, true]);
        let ttls: Vec<u32> = told.answers.iter().map(|record| record.ttl).collect();
        assert_eq!(ttls, [4500, 4500, 120, 4500, 120, 120]);
    }
    assert_eq!(responder.host(), "box.local");
}

#[test]
fn a_question_is_answered_once_a_second_and_a_shared_one_after_a_wait() {
    let (mut responder, mut now) = settled("10.0.0.5");
    let began = now;
    assert!(responder.receive(1, neighbour(), &query(SSH, PTR, false).to_bytes(), now).is_empty());
    let sent = run(&mut responder, &mut now);
    assert!((20 * MS..120 * MS).contains(&(sent[0].0 - began)));
    assert_eq!(kinds(&sent[0].1.answers), [PTR]);
    assert_eq!(kinds(&sent[0].1.additionals)[..4], [SRV, TXT, A, AAAA]);
    let answered = sent[0].0;
    // Of ours alone: at once, but not within a second of the last time.
    assert!(responder.receive(1, neighbour(), &query(HOST, A, false).to_bytes(), now).is_empty());
    assert_eq!(run(&mut responder, &mut now)[0].0, answered + RECORD_INTERVAL);
    let later = now + 2 * RECORD_INTERVAL;
    let sent = responder.receive(1, neighbour(), &query(HOST, A, false).to_bytes(), later);
    assert_eq!(kinds(&Message::parse(&sent[0].bytes).unwrap().answers), [A]);
}

#[test]
fn names_have_the_types_they_have() {
    let (mut responder, now) = settled("10.0.0.5");
    let mut ask = |name: &[&str], kind, wait: u32| {
        let now = now + wait * 2 * RECORD_INTERVAL;
        let sent = responder.receive(1, neighbour(), &query(name, kind, false).to_bytes(), now);
        sent.first().map(|packet| Message::parse(&packet.bytes).unwrap().answers)
    };
    assert_eq!(kinds(&ask(&["BOX", "Local"], ANY, 1).unwrap()), [A, AAAA]);
    assert_eq!(kinds(&ask(INSTANCE, ANY, 2).unwrap()), [SRV, TXT]);
    // Nothing of that type: it says which there are.
    let none = ask(HOST, TXT, 3).unwrap();
    assert_eq!(none[0].data.kind(), message::NSEC);
    assert_eq!(none[0].data.to_bytes(), b"\x03box\x05local\0\0\x04\x40\0\0\x08");
    assert_eq!(ask(&["other", "local"], ANY, 4), None);
    assert_eq!(ask(&["box", "local", "x"], ANY, 5), None);
}

#[test]
fn what_is_known_is_not_said_again() {
    let (mut responder, mut now) = settled("10.0.0.5");
    let pointer = |ttl| {
        let data = Data::Ptr(Name::new(INSTANCE));
        Record { name: Name::new(SSH), flush: false, ttl, data }
    };
    let knowing = |ttl| Message { answers: vec![pointer(ttl)], ..query(SSH, PTR, false) };
    responder.receive(1, neighbour(), &knowing(2250).to_bytes(), now);
    assert_eq!(responder.deadline(), None);
    responder.receive(1, neighbour(), &knowing(2249).to_bytes(), now);
    assert_eq!(run(&mut responder, &mut now).len(), 1);
    // Known answers that follow in a packet of their own; those of somebody else do not count.
    now += 5 * RECORD_INTERVAL;
    let first = Message { truncated: true, ..query(SSH, PTR, false) };
    responder.receive(1, neighbour(), &first.to_bytes(), now);
    assert!(responder.deadline().unwrap() - now >= 400 * MS);
    let rest = Message { answers: vec![pointer(4500)], ..Message::default() }.to_bytes();
    responder.receive(1, "10.0.0.8:5353".parse().unwrap(), &rest, now);
    assert!(responder.deadline().is_some());
    responder.receive(1, neighbour(), &rest, now);
    assert_eq!(responder.deadline(), None);
}

#[test]
fn plain_resolvers_get_an_answer_that_they_understand() {
    let (mut responder, now) = settled("10.0.0.5");
    let source: SocketAddr = "10.0.0.9:40000".parse().unwrap();
    let asked = Message { id: 4711, ..query(SSH, PTR, false) };
    let sent = responder.receive(1, source, &asked.to_bytes(), now);
    assert_eq!((sent.len(), sent[0].to, sent[0].interface), (1, Some(source), 1));
    let answer = Message::parse(&sent[0].bytes).unwrap();
    assert_eq!((answer.id, &answer.questions), (4711, &asked.questions));
    let all = answer.answers.iter().chain(&answer.additionals);
    assert!(all.clone().all(|record| record.ttl <= 10 && !record.flush));
    assert!(all.count() >= 5);
    // A flood of them gets few answers.
    let answers: usize =
        (0..1000).map(|_| responder.receive(1, source, &asked.to_bytes(), now + 10 * MS).len()).sum();
    assert!((10..=30).contains(&answers), "{answers}");
}

#[test]
fn an_answer_to_one_alone_is_one_when_all_others_have_heard() {
    let (mut responder, now) = settled("10.0.0.5");
    let ask = query(HOST, A, true).to_bytes();
    let sent = responder.receive(1, neighbour(), &ask, now);
    assert_eq!(sent[0].to, Some(neighbour()));
    // A quarter of their time is over.
    let sent = responder.receive(1, neighbour(), &ask, now + 30 * RECORD_INTERVAL);
    assert_eq!(sent[0].to, None);
}

#[test]
fn strangers_and_other_interfaces_are_not_answered() {
    let (mut responder, now) = settled("10.0.0.5");
    let ask = query(HOST, A, true).to_bytes();
    for (index, source) in
        [(1, "10.0.1.9:5353"), (1, "[2001:db8::1]:5353"), (2, "10.0.0.9:5353"), (1, "192.0.2.1:9")]
    {
        assert!(responder.receive(index, source.parse().unwrap(), &ask, now).is_empty(), "{source}");
        assert_eq!(responder.deadline(), None);
    }
    assert_eq!(responder.receive(1, "[fe80::9]:5353".parse().unwrap(), &ask, now).len(), 1);
    // A program of this machine.
    assert_eq!(responder.receive(1, "10.0.0.5:5353".parse().unwrap(), &ask, now).len(), 1);
}

/// Carries packets between devices on one network until nothing is due, or so long; each has the address 10.0.0.N.
fn network(devices: &mut [(Responder, u8)], mut now: Instant, limit: Duration) {
    let end = now + limit;
    while let Some(at) =
        devices.iter().filter_map(|(device, _)| device.deadline()).min().filter(|at| *at < end)
    {
        now = at;
        let mut packets = Vec::new();
        for (device, address) in devices.iter_mut() {
            packets.extend(device.act(now).into_iter().map(|packet| (*address, packet.bytes)));
        }
        while let Some((from, bytes)) = packets.pop() {
            let source = SocketAddr::new([10, 0, 0, from].into(), PORT);
            for (device, address) in devices.iter_mut() {
                let answers = device.receive(1, source, &bytes, now);
                packets.extend(answers.into_iter().map(|packet| (*address, packet.bytes)));
            }
        }
    }
}

fn device(address: u8, seed: u64, now: Instant) -> (Responder, u8) {
    let mut responder = Responder::new(Identity::new("box", 22, &FACTS), seed);
    let addresses = vec![(IpAddr::from([10, 0, 0, address]), 24)];
    responder.set_interfaces(&[Interface { index: 1, name: "eth0".into(), addresses }], now);
    (responder, address)
}

#[test]
fn devices_of_one_name_end_with_different_names() {
    for seed in 1..40_u64 {
        let now = Instant::now();
        let count = 2 + (seed % 4) as u8;
        let mut devices: Vec<_> = (1..=count).map(|n| device(n, seed * 7919 * u64::from(n), now)).collect();
        network(&mut devices, now, Duration::from_secs(60));
        let mut names: Vec<String> = devices.iter().map(|(device, _)| device.host()).collect();
        names.sort();
        names.dedup();
        assert_eq!((names.len(), names[0].as_str()), (usize::from(count), "box-2.local"), "{seed} {names:?}");
        assert!(devices.iter().all(|(device, _)| device.deadline().is_none()));
    }
}

#[test]
fn a_newcomer_takes_another_name_and_the_first_keeps_his() {
    let now = Instant::now();
    let mut devices = vec![device(9, 5, now)];
    network(&mut devices, now, Duration::from_secs(10));
    let later = now + Duration::from_secs(20);
    devices.push(device(1, 6, later));
    network(&mut devices, later, Duration::from_secs(10));
    assert_eq!([devices[0].0.host(), devices[1].0.host()], ["box.local", "box-2.local"]);
}

#[test]
fn two_networks_that_become_one_are_sorted_out() {
    let now = Instant::now();
    let mut apart = [vec![device(1, 5, now)], vec![device(9, 6, now)]];
    apart.iter_mut().for_each(|one| network(one, now, Duration::from_secs(10)));
    let mut devices: Vec<_> = apart.into_iter().flatten().collect();
    assert_eq!(devices[0].0.host(), devices[1].0.host());
    let later = now + Duration::from_secs(20);
    // One of them says something.
    let (told, from) = (devices[0].0.goodbye(later), SocketAddr::new([10, 0, 0, 1].into(), PORT));
    let mut message = Message::parse(&told[0].bytes).unwrap();
    message.answers.iter_mut().for_each(|record| record.ttl = 120);
    devices[1].0.receive(1, from, &message.to_bytes(), later);
    network(&mut devices, later, Duration::from_secs(30));
    assert_ne!(devices[0].0.host(), devices[1].0.host());
}

#[test]
fn our_own_words_on_another_interface_are_no_conflict() {
    let (mut responder, mut now) = responder("10.0.0.5");
    responder.set_interfaces(&[interface(1, "10.0.0.5"), interface(2, "10.0.0.6")], now);
    while let Some(at) = responder.deadline() {
        now = at;
        for packet in responder.act(at) {
            // Both are plugged into one switch, and a reflector repeats what it hears.
            for (index, source) in [(1, "10.0.0.6"), (2, "10.0.0.5"), (1, "10.0.0.7"), (2, "10.0.0.7")] {
                let source = SocketAddr::new(source.parse().unwrap(), PORT);
                responder.receive(index, source, &packet.bytes, now);
            }
        }
    }
    assert_eq!(responder.host(), "box.local");
}

#[test]
fn new_addresses_are_announced_and_lost_interfaces_forgotten() {
    let (mut responder, mut now) = settled("10.0.0.5");
    responder.set_interfaces(&[interface(1, "10.0.0.5")], now);
    assert_eq!(responder.deadline(), None);
    responder.set_interfaces(&[interface(1, "10.0.0.77")], now);
    let sent = run(&mut responder, &mut now);
    assert_eq!(sent.len(), 2);
    assert!(sent[0].1.answers.iter().any(|record| record.data == Data::A([10, 0, 0, 77].into())));
    // A new network is asked first.
    responder.set_interfaces(&[interface(1, "10.0.0.77"), interface(2, "10.1.0.1")], now);
    assert_eq!(run(&mut responder, &mut now).len(), 5);
    responder.set_interfaces(&[], now);
    assert_eq!((responder.deadline(), responder.goodbye(now).len()), (None, 0));
}

#[test]
fn a_goodbye_takes_everything_back() {
    let (mut responder, now) = settled("10.0.0.5");
    let sent = responder.goodbye(now);
    let message = Message::parse(&sent[0].bytes).unwrap();
    assert_eq!(kinds(&message.answers), [PTR, PTR, SRV, TXT, A, AAAA]);
    assert!(message.answers.iter().all(|record| record.ttl == 0));
    // Who has told nobody has nothing to take back.
    let (mut probing, now) = super::tests::responder("10.0.0.5");
    assert_eq!(probing.goodbye(now), []);
}

#[test]
fn names_are_made_of_what_there_is() {
    assert_eq!(label("myelin-%s", Some("1000ABC"), "x"), "myelin-1000abc");
    assert_eq!(label("myelin-%s", Some(" :A_b. "), "x"), "myelin-a-b");
    assert_eq!(label("myelin-%s", None, "nerves-12.lan"), "nerves-12");
    assert_eq!(label("myelin-%s", Some("..."), "localhost"), "myelin");
    assert_eq!(label("%h-%s", None, ""), "myelin");
    assert_eq!(label("box", None, "x"), "box");
    assert_eq!(label("%h", None, &"y".repeat(90)), "y".repeat(63));
    let long = label("myelin-%s", Some(&format!("{}END", "z".repeat(100))), "x");
    assert_eq!((long.len(), long.ends_with("zend")), (63, true));
    let mut identity = Identity::new(&long, 22, &[("k", &"\u{f6}".repeat(200))]);
    identity.rename();
    assert_eq!(identity.host.to_string(), format!("{}-2.local", &long[..61]));
    for record in identity.records(Set::Text, &[]) {
        assert!(record.data.to_bytes().len() < 110);
    }
}

#[test]
fn a_message_is_read_as_it_was_written() {
    let (mut responder, now) = settled("10.0.0.5");
    let mut message = Message::parse(&responder.goodbye(now)[0].bytes).unwrap();
    message.id = 7;
    let again = Message::parse(&message.to_bytes()).unwrap();
    assert_eq!(again, message);
    // The largest there can be fits into one Ethernet frame.
    let address = |n: u8| (IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, u16::from(n)]), 64);
    let facts: Vec<(&str, &str)> = ["myelin", "product", "version", "platform", "serial"]
        .map(|key| (key, "v23456789.123456789.123456789.123456789.123456789.123456789.123456789.123456789.123456789.123456789."))
        .to_vec();
    let mut largest = Responder::new(Identity::new(&"n".repeat(63), 65535, &facts), 1);
    let addresses = (0..8).map(address).collect();
    largest.set_interfaces(&[Interface { index: 1, name: "e".into(), addresses }], now);
    let mut sizes = Vec::new();
    while let Some(at) = largest.deadline() {
        sizes.extend(largest.act(at).iter().map(|packet| packet.bytes.len()));
    }
    assert!(sizes.iter().all(|size| *size <= 1440), "{sizes:?}");
}

#[test]
fn pointers_that_go_round_in_circles_are_refused() {
    let head = [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for name in
        [&[0xc0, 12][..], &[1, b'a', 0xc0, 12], &[0xc0, 14, 0xc0, 12], &[0xc0, 0xff], &[0x80, 1], &[63, 1]]
    {
        assert_eq!(Message::parse(&[&head[..], name, &[0, 1, 0, 1]].concat()), None, "{name:?}");
    }
    let long = [&[63; 64][..]; 5].concat();
    assert_eq!(Message::parse(&[&head[..], &long, &[0, 0, 1, 0, 1]].concat()), None);
    let good = [&head[..], &[1, b'a', 0, 0, 1, 0, 1]].concat();
    assert!(Message::parse(&good).is_some());
    let many = [0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0];
    assert_eq!(Message::parse(&many), None);
}

/// Nothing that comes in can end it, make it answer much, or make it grow.
#[test]
fn mutated_packets_do_no_harm() {
    let (mut responder, mut now) = settled("10.0.0.5");
    let record = |name: &[&str], data| Record { name: Name::new(name), flush: true, ttl: 120, data };
    let texts = [
        query(SSH, PTR, true).to_bytes(),
        Message { truncated: true, ..query(HOST, ANY, false) }.to_bytes(),
        Message {
            response: true,
            answers: vec![record(HOST, Data::A([10, 0, 0, 66].into()))],
            ..Message::default()
        }
        .to_bytes(),
        Message {
            authorities: vec![
                record(INSTANCE, Data::Srv { port: 1, target: Name::new(HOST) }),
                record(INSTANCE, Data::Txt(b"\x03a=b".to_vec())),
                record(HOST, Data::Nsec(Name::new(HOST), vec![A, AAAA])),
            ],
            ..query(INSTANCE, ANY, true)
        }
        .to_bytes(),
        responder.goodbye(now)[0].bytes.clone(),
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % limit as u64) as usize
    };
    let mut understood = 0;
    for round in 0..60_000 {
        let mut bytes = texts[round % texts.len()].clone();
        for _ in 0..random(6) {
            let at = random(bytes.len());
            match random(4) {
                0 => bytes[at] = random(256) as u8,
                1 => bytes[at] ^= 1 << random(8),
                2 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, [0, 0xc0, 12, 63, 255][random(5)]),
            }
        }
        if let Some(message) = Message::parse(&bytes) {
            understood += 1;
            // Names show nothing that a terminal would act on.
            for record in &message.answers {
                assert!(record.name.to_string().bytes().all(|byte| byte.is_ascii_graphic()));
            }
            let again = Message::parse(&message.to_bytes()).expect("what was understood can be written");
            assert_eq!(again.answers, message.answers);
        }
        let port = [PORT, 40_000][random(2)];
        let packets = responder.receive(1, SocketAddr::new([10, 0, 0, 9].into(), port), &bytes, now);
        assert!(packets.len() <= 3 && packets.iter().all(|packet| packet.bytes.len() <= 1440));
        now += random(50) as u32 * MS;
        responder.act(now);
    }
    assert!(understood > 10_000, "{understood}");
    assert!(Message::parse(&vec![0; 9001]).is_none());
    let (mut left, mut now) = (responder, now);
    run(&mut left, &mut now);
    assert!(left.host().starts_with("box"), "{}", left.host());
}
