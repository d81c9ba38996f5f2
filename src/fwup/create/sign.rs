//! `-S`: the same archive with a new signature in front. `meta.conf` keeps its bytes, and so its UUID.

use std::fs::File;
use std::path::Path;

use super::{CreateError, Destination, creation_time, write_head};
use crate::fwup::archive::header::{Entry, Method};
use crate::fwup::archive::reader::ArchiveReader;
use crate::fwup::archive::writer::ArchiveWriter;
use crate::fwup::archive::{META_CONF_NAME, SIGNATURE_NAME};
use crate::fwup::firmware::Head;
use crate::fwup::language::variables::Variables;
use crate::fwup::options::Options;

pub fn sign(options: &Options) -> Result<(), CreateError> {
    let (Some(input), Some(output), Some(key)) =
        (options.input_file(), options.output.as_deref(), options.private_key.as_ref())
    else {
        return Err(CreateError::SignOptions);
    };
    if output == Path::new("-") {
        return Err(CreateError::SignOptions);
    }
    let sizes = sizes(input)?;
    let mut temporary = input.as_os_str().to_owned();
    temporary.push(".tmp");
    let mut source = open(input)?;
    let head = Head::read(&mut source)?;
    let mut destination = Destination::at(temporary.into(), output.into())?;
    let mut archive = ArchiveWriter::new(&mut destination.out, options.compression);
    let now = creation_time(&Variables::from_environment());
    write_head(&mut archive, Some(key), &head.meta_conf, now)?;
    let mut chunk = vec![0; CHUNK];
    for (expected, size) in sizes {
        let Some(entry) = source.next_entry()? else { break };
        debug_assert_eq!(entry.name, expected.name);
        let mut copy = archive.entry(&entry.name, Method::Deflated, size, None)?;
        loop {
            let length = source.read(&mut chunk)?;
            copy.write(&chunk[..length])?;
            if length < chunk.len() {
                break;
            }
        }
        copy.finish()?;
    }
    archive.finish()?;
    destination.keep()
}

/// The resources and what they really hold. Local headers may not tell, and the copy must tell it: by its
/// size a delta is recognised.
fn sizes(path: &Path) -> Result<Vec<(Entry, u64)>, CreateError> {
    let mut archive = open(path)?;
    Head::read(&mut archive)?;
    let mut sizes = Vec::new();
    let mut chunk = vec![0; CHUNK];
    while let Some(entry) = archive.next_entry()? {
        if entry.name == META_CONF_NAME || entry.name == SIGNATURE_NAME {
            return Err(CreateError::Twice { name: entry.name });
        }
        let mut size = 0;
        loop {
            let length = archive.read(&mut chunk)?;
            size += length as u64;
            if length < chunk.len() {
                break;
            }
        }
        sizes.push((entry, size));
    }
    Ok(sizes)
}

fn open(path: &Path) -> Result<ArchiveReader<File>, CreateError> {
    let file = File::open(path).map_err(|source| CreateError::Input { path: path.into(), source })?;
    Ok(ArchiveReader::new(file))
}

const CHUNK: usize = 128 * 1024;
