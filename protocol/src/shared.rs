//! How what is shared in memory is archived.

use std::sync::Arc;

use rkyv::boxed::{ArchivedBox, BoxResolver};
use rkyv::rancor::Fallible;
use rkyv::with::{ArchiveWith, DeserializeWith, SerializeWith};
use rkyv::{Archive, Deserialize, Place, Serialize};

/// A field of an [`Arc`] that is archived as a [`Box`]: out of line, and each time anew.
pub(crate) struct Boxed;

impl<T: Archive> ArchiveWith<Arc<T>> for Boxed {
    type Archived = ArchivedBox<T::Archived>;
    type Resolver = BoxResolver;

    fn resolve_with(field: &Arc<T>, resolver: BoxResolver, out: Place<Self::Archived>) {
        ArchivedBox::resolve_from_ref(&**field, resolver, out);
    }
}

impl<T: Serialize<S>, S: rkyv::ser::Writer + Fallible + ?Sized> SerializeWith<Arc<T>, S> for Boxed {
    fn serialize_with(field: &Arc<T>, serializer: &mut S) -> Result<BoxResolver, S::Error> {
        ArchivedBox::serialize_from_ref(&**field, serializer)
    }
}

impl<T, D> DeserializeWith<ArchivedBox<T::Archived>, Arc<T>, D> for Boxed
where
    T: Archive,
    T::Archived: Deserialize<T, D>,
    D: Fallible + ?Sized,
{
    fn deserialize_with(
        field: &ArchivedBox<T::Archived>,
        deserializer: &mut D,
    ) -> Result<Arc<T>, D::Error> {
        field.get().deserialize(deserializer).map(Arc::new)
    }
}

/// A field of an [`Arc`] that is archived as what is in it: in place, and each time anew.
pub(crate) struct Inlined;

impl<T: Archive> ArchiveWith<Arc<T>> for Inlined {
    type Archived = T::Archived;
    type Resolver = T::Resolver;

    fn resolve_with(field: &Arc<T>, resolver: T::Resolver, out: Place<T::Archived>) {
        (**field).resolve(resolver, out);
    }
}

impl<T: Serialize<S>, S: Fallible + ?Sized> SerializeWith<Arc<T>, S> for Inlined {
    fn serialize_with(field: &Arc<T>, serializer: &mut S) -> Result<T::Resolver, S::Error> {
        (**field).serialize(serializer)
    }
}

impl<T, D> DeserializeWith<T::Archived, Arc<T>, D> for Inlined
where
    T: Archive,
    T::Archived: Deserialize<T, D>,
    D: Fallible + ?Sized,
{
    fn deserialize_with(field: &T::Archived, deserializer: &mut D) -> Result<Arc<T>, D::Error> {
        field.deserialize(deserializer).map(Arc::new)
    }
}

#[cfg(test)]
mod tests {
    use rkyv::rancor::Error;

    use super::*;

    #[derive(Debug, Archive, Serialize, Deserialize)]
    enum Owned {
        Number(u64),
        Text(Box<(String, String)>),
    }

    #[derive(Debug, PartialEq, Archive, Serialize, Deserialize)]
    enum Shared {
        Number(u64),
        Text(#[rkyv(with = Boxed)] Arc<(String, String)>),
    }

    #[derive(Debug, PartialEq, Archive, Serialize, Deserialize)]
    struct Plain {
        one: String,
        many: Vec<String>,
    }

    #[derive(Debug, PartialEq, Archive, Serialize, Deserialize)]
    struct Kept {
        #[rkyv(with = Inlined)]
        one: Arc<String>,
        #[rkyv(with = rkyv::with::Map<Inlined>)]
        many: Vec<Arc<String>>,
    }

    #[test]
    fn the_archive_is_that_of_what_is_shared() {
        let texts = ["short", "a longer one, out of line"].map(str::to_owned);
        let plain = Plain { one: texts[1].clone(), many: texts.to_vec() };
        let kept = Kept { one: texts[1].clone().into(), many: texts.map(Arc::new).into() };
        let encoded = rkyv::to_bytes::<Error>(&kept).unwrap();
        assert_eq!(encoded[..], rkyv::to_bytes::<Error>(&plain).unwrap()[..]);
        assert_eq!(rkyv::from_bytes::<Kept, Error>(&encoded).unwrap(), kept);
    }

    #[test]
    fn the_archive_is_that_of_a_box() {
        let text = ("one".to_owned(), "a longer one, out of line".to_owned());
        let pairs = [
            (Owned::Number(7), Shared::Number(7)),
            (Owned::Text(text.clone().into()), Shared::Text(text.into())),
        ];
        for (owned, shared) in pairs {
            let encoded = rkyv::to_bytes::<Error>(&shared).unwrap();
            assert_eq!(encoded[..], rkyv::to_bytes::<Error>(&owned).unwrap()[..]);
            assert_eq!(rkyv::from_bytes::<Shared, Error>(&encoded).unwrap(), shared);
        }
    }
}
