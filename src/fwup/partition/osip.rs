//! The OSIP header, which some Intel boards want in place of boot code.

use super::PartitionError;

/// The values of the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Osip {
    pub major: i64,
    pub minor: i64,
    pub pointers: i64,
    pub images: Vec<OsipImage>,
}

/// One `osii` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OsipImage {
    pub number: u32,
    pub os_major: i64,
    pub os_minor: i64,
    pub start_block: i64,
    pub load_address: i64,
    pub entry_point: i64,
    pub size_blocks: i64,
    pub attribute: i64,
}

const HEADER: usize = 32;
const IMAGE: usize = 24;
const LAST_IMAGE: u32 = 14;
const CHECKSUM: usize = 7;

impl Osip {
    pub(super) fn bytes(&self) -> Result<Vec<u8>, PartitionError> {
        if let Some(image) = self.images.iter().find(|image| image.number > LAST_IMAGE) {
            return Err(PartitionError::OsipNumber(image.number));
        }
        let count = self.images.iter().map(|image| image.number as usize + 1).max();
        let count = count.ok_or(PartitionError::NoOsipImage)?;
        let size = HEADER + count * IMAGE;

        let mut header = b"$OS$\0".to_vec();
        header.push(byte("osip-minor", self.minor)?);
        header.push(byte("osip-major", self.major)?);
        header.push(0);
        header.push(byte("osip-num-pointers", self.pointers)?);
        header.push(count as u8);
        header.extend((size as u16).to_le_bytes());
        header.resize(size, 0);
        for image in &self.images {
            let at = HEADER + image.number as usize * IMAGE;
            header[at..at + IMAGE].copy_from_slice(&image.bytes()?);
        }
        header[CHECKSUM] = header.iter().fold(0, |sum, b| sum ^ b);
        Ok(header)
    }
}

impl OsipImage {
    fn bytes(&self) -> Result<[u8; IMAGE], PartitionError> {
        let mut bytes = Vec::with_capacity(IMAGE);
        bytes.extend(half("os-minor", self.os_minor)?);
        bytes.extend(half("os-major", self.os_major)?);
        bytes.extend(word("start-block-offset", self.start_block)?);
        bytes.extend(word("ddr-load-address", self.load_address)?);
        bytes.extend(word("entry-point", self.entry_point)?);
        bytes.extend(word("image-size-blocks", self.size_blocks)?);
        bytes.push(byte("attribute", self.attribute)?);
        let mut image = [0; IMAGE];
        image[..bytes.len()].copy_from_slice(&bytes);
        Ok(image)
    }
}

fn byte(name: &'static str, value: i64) -> Result<u8, PartitionError> {
    u8::try_from(value).map_err(|_| PartitionError::OsipValue { name, value, most: u8::MAX.into() })
}

fn half(name: &'static str, value: i64) -> Result<[u8; 2], PartitionError> {
    let most = u16::MAX.into();
    u16::try_from(value).map(u16::to_le_bytes).map_err(|_| PartitionError::OsipValue { name, value, most })
}

fn word(name: &'static str, value: i64) -> Result<[u8; 4], PartitionError> {
    let most = u32::MAX;
    u32::try_from(value).map(u32::to_le_bytes).map_err(|_| PartitionError::OsipValue { name, value, most })
}
