//! Which methods somebody has to go through, and how far he is. Pure.

use crate::config::Method;

/// The rest of each list of `authentication_methods`; no list means that any one method is enough.
#[derive(Debug, PartialEq, Eq)]
pub struct Steps(Vec<Vec<Method>>);

impl Steps {
    pub fn new(lists: Vec<Vec<Method>>) -> Self {
        Self(lists)
    }

    /// Whether one method is all that it takes.
    pub fn any_is_enough(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `method` may come next.
    pub fn allow(&self, method: Method) -> bool {
        self.any_is_enough() || self.0.iter().any(|list| list.first() == Some(&method))
    }

    /// `method`, which may come next, has succeeded: whether that was the last.
    pub fn pass(&mut self, method: Method) -> bool {
        if self.any_is_enough() {
            return true;
        }
        self.0.retain_mut(|list| {
            let is_next = list.first() == Some(&method);
            if is_next {
                list.remove(0);
            }
            is_next
        });
        self.0.iter().any(Vec::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Method::{KeyboardInteractive, Password, PublicKey};

    #[test]
    fn lists_are_gone_through_in_order() {
        let mut steps = Steps::new(vec![vec![PublicKey, Password], vec![PublicKey, KeyboardInteractive]]);
        assert!(steps.allow(PublicKey) && !steps.allow(Password));
        assert!(!steps.pass(PublicKey));
        assert!(steps.allow(Password) && steps.allow(KeyboardInteractive) && !steps.allow(PublicKey));
        assert!(steps.pass(KeyboardInteractive));
        let mut any = Steps::new(Vec::new());
        assert!(any.allow(Password) && any.pass(Password));
        let mut short = Steps::new(vec![vec![PublicKey, Password], vec![Password]]);
        assert!(short.allow(Password) && short.pass(Password));
    }
}
