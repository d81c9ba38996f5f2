//! The tables of the vectors `mbr.conf` and `gpt.conf`, compared with the hashes of what fwup wrote.

use sha2::{Digest, Sha256};

use super::*;

fn sha256(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

/// Number, offset, count (0: not given), type.
fn partition(number: u32, offset: i64, count: i64, kind: i64) -> MbrPartition {
    let count = (count > 0).then_some(count);
    MbrPartition { number, offset: Some(offset), count, kind: Some(kind), boot: false, expand: false }
}

fn compare(mbr: &Mbr, medium: Option<u64>, expected: &[(u64, &str)]) {
    let mut writes = mbr.blocks(medium).expect("a good table");
    writes.sort_by_key(|(block, _)| *block);
    let got: Vec<(u64, String)> = writes.iter().map(|(block, bytes)| (*block, sha256(bytes))).collect();
    let expected: Vec<(u64, String)> =
        expected.iter().map(|(block, hash)| (*block, (*hash).into())).collect();
    assert_eq!(got, expected);
}

#[test]
fn four_primary_partitions() {
    let mut partitions = vec![
        partition(0, 63, 77_261, 0xC),
        partition(1, 77_324, 289_044, 0x83),
        partition(2, 366_368, 289_044, 0x83),
        partition(3, 655_412, 1_048_576, 0x83),
    ];
    partitions[0].boot = true;
    let mbr = Mbr { boot: BootArea::Zeros, signature: 0, partitions };
    compare(&mbr, None, &[(0, "771206a0f18f3ec4bcf404e2e495835ad9e250b88c947acf202bd731473f77c9")]);
}

#[test]
fn an_expanding_partition() {
    let mut partitions = vec![partition(0, 1024, 1024, 0xC), partition(1, 2048, 16, 0x83)];
    partitions[1].expand = true;
    let mbr = Mbr { boot: BootArea::Zeros, signature: 0, partitions };
    compare(&mbr, None, &[(0, "132f9ca520082b19dc05edf024174429c8781b4c511cdd6a783c14762b1de6cd")]);
    compare(&mbr, Some(5000), &[(0, "e4ae79092d72d0f615ec6e45bc6f60319538f8e5692e703e947fefd5b5ca1ab4")]);
}

#[test]
fn logical_partitions() {
    let mut partitions = vec![
        partition(0, 64, 1984, 0x6),
        partition(1, 2048, 2048, 0xC),
        partition(3, 4096, 0, 0xF),
        partition(4, 4352, 1000, 0x83),
        partition(5, 5352, 1000, 0x83),
        partition(6, 6352, 64, 0x83),
    ];
    partitions[0].boot = true;
    partitions[5].expand = true;
    let mbr = Mbr { boot: BootArea::Zeros, signature: 0x0102_0304, partitions };
    let first = "8b5833d548ddfc65cc5759cda0bac9cd54acf95e131aec2cbe8925f0b9f79ccd";
    let second = "9d80ae3b0395a333c93ee986b3f0f9aa35d407b3eef1c65311eb5cf07c237257";
    compare(
        &mbr,
        None,
        &[
            (0, "5fd9cdf1e342d80a89564c54c0d172df354a7d64bb0a4f79070ac629b67c9fd0"),
            (4096, first),
            (4097, second),
            (4098, "e0f131c11d8121014df78d9931f724bf97a1e8a8e45012a31f3e7a6e955bb67f"),
        ],
    );
    compare(
        &mbr,
        Some(10_000),
        &[
            (0, "05a17c1d08ce974427d80165dc84f2470a6d0e2d277d2d345eea48de901a9a4e"),
            (4096, first),
            (4097, second),
            (4098, "05995e9fd36a429fc0d42c3608ead41efb5c51ad6b7492d76bf317ed9003ca6c"),
        ],
    );
}

#[test]
fn an_osip_header() {
    let image = OsipImage {
        number: 0,
        os_major: 2,
        os_minor: 3,
        start_block: 1024,
        load_address: 0x0110_0000,
        entry_point: 0x0110_1000,
        size_blocks: 0xC000,
        attribute: 15,
    };
    let osip = Osip { major: 1, minor: 0, pointers: 1, images: vec![image] };
    let partitions = vec![partition(0, 2048, 2048, 0x83)];
    let mbr = Mbr { boot: BootArea::Osip(osip), signature: 0, partitions };
    compare(&mbr, None, &[(0, "f249387af22b77be37d7f37e5996abbbc6917350e86c19b163fa9513b2adce6d")]);
}

#[test]
fn a_gpt_on_media_of_two_sizes() {
    let partition = |number, offset, count, kind: &str, guid: &str, name: &[u8], flags| GptPartition {
        number,
        offset: Some(offset),
        count: Some(count),
        kind: Guid::parse(kind.as_bytes()),
        guid: Guid::parse(guid.as_bytes()),
        name: name.to_vec(),
        flags: Some(flags),
        expand: number == 5,
    };
    let esp = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
    let root = "44479540-f297-41b2-9af7-d131d5f0458a";
    let data = "0fc63daf-8483-4772-8e79-3d69d8477de4";
    let gpt = Gpt {
        guid: Guid::parse(b"b443fbeb-2c93-481b-88b3-0ecb0aeba911"),
        partitions: vec![
            partition(0, 1024, 1024, esp, "5278721d-0089-4768-85df-b8f1b97e6684", b"efi-part.vfat", 4),
            partition(
                1,
                2048,
                1024,
                root,
                "FCC205C8-2F1C-4DCD-BEF4-7B209AA15CCA",
                b"rootfs",
                0xC_0000_0000_0000,
            ),
            partition(5, 4096, 512, data, "9558571b-1dfc-4c3f-8db4-a8a564fb99a4", b"", 0),
        ],
    };
    for (medium, hashes) in [
        (
            16_384,
            [
                "c66dd283bb000c45cbc8f480a0dd739cf87a88e51fb9d554d7523ffde1b27c57",
                "57ac342b510541ca31e10463067853d2808e42c8d961cc556e462f0a0007ad6b",
                "26328538851e17dff5200c84c62ab71436e7aa57564e876328e1b75ca9fdf660",
                "dc3774c5a8734a61f8870a72a733684e67d1cd62e28e53766932565bd6037d92",
            ],
        ),
        (
            16_350,
            [
                "39b062131ad9a4f33fa2b4caa4f1d0b06f78c6fff66925743f858502e2ab3caf",
                "8f47735222a824a2a6ea95026d75efc9b5031c7a9adb26369e276cd7ac6d6111",
                "e627d06d824c3f2c5194ec28b4d850843488ffb4c8f5af2760c79e46859ca8ff",
                "7572a0549705fcd20fb4a5bbd2dbe03f9653d252c53df9bab070a96b650fb5cb",
            ],
        ),
    ] {
        let writes = gpt.blocks(Some(medium)).expect("a good table");
        let [(tail_at, tail), (0, head)] = &writes[..] else { panic!("two writes are expected") };
        assert_eq!((*tail_at, tail.len()), (medium - 33, 33 * BLOCK));
        let found = [&head[..BLOCK], &head[BLOCK..2 * BLOCK], &head[2 * BLOCK..], &tail[32 * BLOCK..]];
        assert_eq!(found.map(sha256), hashes, "medium of {medium} blocks");
        assert!(head[2 * BLOCK..] == tail[..32 * BLOCK]);
    }
}
