//! What a client has open.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use super::listing::Listing;
use super::refusal::Refusal;

pub enum Handle {
    File(File),
    Folder(Listing),
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::File(file) => file.as_fd(),
            Self::Folder(listing) => listing.folder.as_fd(),
        }
    }
}

/// Open files and folders by number. A number is not used again soon, so that one kept too long names nothing.
pub struct Handles {
    open: BTreeMap<u32, Handle>,
    next: u32,
    limit: usize,
}

impl Handles {
    pub fn new(limit: usize) -> Self {
        Self { open: BTreeMap::new(), next: 0, limit }
    }

    /// Refuses when the limit is reached: asked before anything is opened or made.
    pub fn has_room(&self) -> Result<(), Refusal> {
        if self.open.len() < self.limit { Ok(()) } else { Err(Refusal::TooManyHandles) }
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Takes what was opened; its name for the client.
    pub fn insert(&mut self, handle: Handle) -> [u8; 4] {
        while self.open.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.next = number.wrapping_add(1);
        self.open.insert(number, handle);
        number.to_be_bytes()
    }

    pub fn get(&self, name: &[u8]) -> Result<&Handle, Refusal> {
        self.open.get(&number(name)?).ok_or(Refusal::NoSuchHandle)
    }

    pub fn file(&self, name: &[u8]) -> Result<&File, Refusal> {
        match self.get(name)? {
            Handle::File(file) => Ok(file),
            Handle::Folder(_) => Err(Refusal::NoSuchHandle),
        }
    }

    pub fn folder(&mut self, name: &[u8]) -> Result<&mut Listing, Refusal> {
        match self.open.get_mut(&number(name)?) {
            Some(Handle::Folder(listing)) => Ok(listing),
            _ => Err(Refusal::NoSuchHandle),
        }
    }

    pub fn close(&mut self, name: &[u8]) -> Result<(), Refusal> {
        self.open.remove(&number(name)?).map(drop).ok_or(Refusal::NoSuchHandle)
    }
}

fn number(name: &[u8]) -> Result<u32, Refusal> {
    name.try_into().map(u32::from_be_bytes).map_err(|_| Refusal::NoSuchHandle)
}
