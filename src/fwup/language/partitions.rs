//! `mbr` and `gpt` sections as the settings of partition tables. The tables are checked elsewhere.

use super::check::CheckError;
use super::schema::NO_COUNT;
use super::section::Section;
use super::shown;
use crate::fwup::partition::{BootArea, Gpt, GptPartition, Guid, Mbr, MbrPartition, Osip, OsipImage};
use crate::fwup::{hex, number};

pub fn mbr(section: &Section) -> Result<Mbr, CheckError> {
    let signature = section.text_or_default("signature");
    let signature = number::parse_u64(signature).and_then(|number| u32::try_from(number).ok());
    let partitions = section.sections("partition").iter().map(|one| {
        Ok(MbrPartition {
            number: title_number(one)?,
            offset: offset(one)?,
            count: count(one),
            kind: Some(one.int("type")).filter(|&kind| kind >= 0),
            boot: one.flag("boot"),
            expand: one.flag("expand"),
        })
    });
    Ok(Mbr {
        boot: boot_area(section)?,
        signature: signature.ok_or_else(|| wrong(section, "signature"))?,
        partitions: partitions.collect::<Result<_, CheckError>>()?,
    })
}

pub fn gpt(section: &Section) -> Result<Gpt, CheckError> {
    let guid = |section: &Section, key| section.text(key).and_then(Guid::parse);
    let partitions = section.sections("partition").iter().map(|one| {
        let flags = number::parse_u64(one.text_or_default("flags"));
        let boot = if one.flag("boot") { BOOT_FLAG } else { 0 };
        Ok(GptPartition {
            number: title_number(one)?,
            offset: offset(one)?,
            count: count(one),
            kind: guid(one, "type"),
            guid: guid(one, "guid"),
            name: one.text_or_default("name").to_vec(),
            flags: flags.map(|flags| flags | boot),
            expand: one.flag("expand"),
        })
    });
    Ok(Gpt { guid: guid(section, "guid"), partitions: partitions.collect::<Result<_, CheckError>>()? })
}

fn boot_area(section: &Section) -> Result<BootArea, CheckError> {
    let code = section.text("bootstrap-code");
    if !section.flag("include-osip") {
        let Some(digits) = code else { return Ok(BootArea::Zeros) };
        let code = hex::decode(digits).ok_or_else(|| wrong(section, "bootstrap-code"))?;
        return Ok(BootArea::Code(Box::new(code)));
    }
    if code.is_some() {
        return Err(CheckError::CodeAndOsip { name: shown(&section.title) });
    }
    let images = section.sections("osii").iter().map(|one| {
        Ok(OsipImage {
            number: title_number(one)?,
            os_major: one.int("os-major"),
            os_minor: one.int("os-minor"),
            start_block: one.int("start-block-offset"),
            load_address: one.int("ddr-load-address"),
            entry_point: one.int("entry-point"),
            size_blocks: one.int("image-size-blocks"),
            attribute: one.int("attribute"),
        })
    });
    Ok(BootArea::Osip(Osip {
        major: section.int("osip-major"),
        minor: section.int("osip-minor"),
        pointers: section.int("osip-num-pointers"),
        images: images.collect::<Result<_, CheckError>>()?,
    }))
}

fn title_number(section: &Section) -> Result<u32, CheckError> {
    let number = number::parse_u64(&section.title).and_then(|number| u32::try_from(number).ok());
    number.ok_or_else(|| CheckError::PartitionNumber { title: shown(&section.title) })
}

fn offset(section: &Section) -> Result<Option<i64>, CheckError> {
    let text = section.text("block-offset");
    text.map(|text| number::parse_i64(text).ok_or_else(|| wrong(section, "block-offset"))).transpose()
}

fn count(section: &Section) -> Option<i64> {
    Some(section.int("block-count")).filter(|&count| count != NO_COUNT)
}

fn wrong(section: &Section, key: &'static str) -> CheckError {
    CheckError::PartitionSetting { kind: section.schema.kind, title: shown(&section.title), key }
}

/// "Legacy BIOS bootable".
pub const BOOT_FLAG: u64 = 1 << 2;
