//! A Merkle Patricia trie in memory. What was computed of it is kept until something below changes,
//! so that a root costs what has changed since the last one.

use alloy_primitives::{B256, Bytes, keccak256};
use alloy_trie::nodes::{BranchNodeRef, ExtensionNodeRef, LeafNodeRef, RlpNode};
use alloy_trie::{EMPTY_ROOT_HASH, Nibbles, TrieMask};

/// Longest encoding of a node that stands in its parent as it is; of a longer one, its hash does.
const INLINE_BYTES_MAX: usize = 31;

/// Values by the hashes of their keys.
#[derive(Debug, Clone, Default)]
pub(super) struct Trie {
    root: Option<Box<Node>>,
}

/// **Invariant.** A branch has at least two children.
#[derive(Debug, Clone)]
struct Node {
    /// The way to it from where the branch above points. That of a branch is an extension.
    path: Nibbles,
    kind: Kind,
    /// What stands for it in its parent, if nothing changed since that was computed.
    reference: Option<RlpNode>,
}

#[derive(Debug, Clone)]
enum Kind {
    Leaf(Vec<u8>),
    Branch([Option<Box<Node>>; 16]),
}

impl Trie {
    /// Sets the value of a key's hash.
    pub(super) fn insert(&mut self, key: B256, value: Vec<u8>) {
        let path = Nibbles::unpack(key);
        match &mut self.root {
            Some(root) => root.insert(path, value),
            None => self.root = Some(Node::leaf(path, value)),
        }
    }

    /// Removes the value of a key's hash, if it has one.
    pub(super) fn remove(&mut self, key: B256) {
        Node::remove(&mut self.root, Nibbles::unpack(key));
    }

    /// The value of a key's hash.
    pub(super) fn get(&self, key: B256) -> Option<&[u8]> {
        let mut path = Nibbles::unpack(key);
        let mut node = self.root.as_deref()?;
        loop {
            if !path.starts_with(&node.path) {
                return None;
            }
            match &node.kind {
                Kind::Leaf(value) => return Some(value),
                Kind::Branch(children) => {
                    let at = node.path.len();
                    node = children[usize::from(path.get(at)?)].as_deref()?;
                    path = path.slice(at + 1..);
                }
            }
        }
    }

    /// Its root.
    pub(super) fn root(&mut self) -> B256 {
        let Some(root) = &mut self.root else { return EMPTY_ROOT_HASH };
        let reference = root.refer();
        reference.as_hash().unwrap_or_else(|| keccak256(&reference))
    }

    /// The encodings of the nodes on the way to a key's hash, or to where it would be.
    pub(super) fn prove(&mut self, key: B256) -> Vec<Bytes> {
        let mut path = Nibbles::unpack(key);
        let (mut proof, mut next) = (Vec::new(), self.root.as_deref_mut());
        while let Some(node) = next.take() {
            let matches = path.starts_with(&node.path);
            for encoded in node.encodings() {
                // The root is always there; others only if their hashes stand for them.
                if proof.is_empty() || encoded.len() > INLINE_BYTES_MAX {
                    proof.push(Bytes::from(encoded));
                }
                if !matches {
                    return proof;
                }
            }
            if let Kind::Branch(children) = &mut node.kind {
                let at = node.path.len();
                next = children[usize::from(path.get_unchecked(at))].as_deref_mut();
                path = path.slice(at + 1..);
            }
        }
        proof
    }
}

impl Node {
    fn leaf(path: Nibbles, value: Vec<u8>) -> Box<Self> {
        Box::new(Self { path, kind: Kind::Leaf(value), reference: None })
    }

    fn insert(&mut self, path: Nibbles, value: Vec<u8>) {
        self.reference = None;
        let shared = self.path.common_prefix_length(&path);
        if shared < self.path.len() {
            return self.split(shared, path, value);
        }
        match &mut self.kind {
            // All paths are of one length.
            Kind::Leaf(old) => *old = value,
            Kind::Branch(children) => {
                let child = &mut children[usize::from(path.get_unchecked(shared))];
                let rest = path.slice(shared + 1..);
                match child {
                    Some(child) => child.insert(rest, value),
                    None => *child = Some(Self::leaf(rest, value)),
                }
            }
        }
    }

    /// Becomes a branch of what it was and a new leaf.
    fn split(&mut self, shared: usize, path: Nibbles, value: Vec<u8>) {
        let branch = Kind::Branch(Default::default());
        let kind = std::mem::replace(&mut self.kind, branch);
        let (old, new) = (self.path.get_unchecked(shared), path.get_unchecked(shared));
        let rest = self.path.slice(shared + 1..);
        self.path = path.slice(..shared);
        if let Kind::Branch(children) = &mut self.kind {
            let below = Self { path: rest, kind, reference: None };
            children[usize::from(old)] = Some(Box::new(below));
            children[usize::from(new)] = Some(Self::leaf(path.slice(shared + 1..), value));
        }
    }

    /// Removes the value at a path. Returns whether there was one.
    fn remove(place: &mut Option<Box<Self>>, path: Nibbles) -> bool {
        let Some(node) = place else { return false };
        if !path.starts_with(&node.path) {
            return false;
        }
        let at = node.path.len();
        let Kind::Branch(children) = &mut node.kind else {
            *place = None;
            return true;
        };
        let child = &mut children[usize::from(path.get_unchecked(at))];
        if !Self::remove(child, path.slice(at + 1..)) {
            return false;
        }
        node.reference = None;
        let mut left = (0_u8..).zip(children).filter(|(_, child)| child.is_some());
        if let (Some((nibble, only)), None) = (left.next(), left.next())
            && let Some(mut only) = only.take()
        {
            let mut way = node.path;
            way.push(nibble);
            only.path = way.join(&only.path);
            only.reference = None;
            *place = Some(only);
        }
        true
    }

    /// What stands for it in its parent.
    fn refer(&mut self) -> RlpNode {
        if let Some(reference) = &self.reference {
            return reference.clone();
        }
        let mut encoded = self.encodings();
        let top = encoded.swap_remove(0);
        self.reference.insert(RlpNode::from_rlp(&top)).clone()
    }

    /// Its encoding; of a branch with an extension above it, that of the extension first.
    fn encodings(&mut self) -> Vec<Vec<u8>> {
        let mut encoded = Vec::new();
        let children = match &mut self.kind {
            Kind::Leaf(value) => {
                LeafNodeRef::new(&self.path, value).rlp(&mut encoded);
                return vec![encoded];
            }
            Kind::Branch(children) => children,
        };
        let mut mask = TrieMask::default();
        let mut references = Vec::with_capacity(children.len());
        for (nibble, child) in (0_u8..).zip(children) {
            if let Some(child) = child {
                mask.set_bit(nibble);
                references.push(child.refer());
            }
        }
        let reference = BranchNodeRef::new(&references, mask).rlp(&mut encoded);
        if self.path.is_empty() {
            return vec![encoded];
        }
        let mut extension = Vec::new();
        ExtensionNodeRef::new(&self.path, &reference).rlp(&mut extension);
        vec![extension, encoded]
    }
}
