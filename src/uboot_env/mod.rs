//! The U-Boot environment block: parse, CRC, redundant copies, safe write.

pub mod codec;
