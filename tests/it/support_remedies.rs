//! Halts and remedies for the stores that tests put in the place of a backend.

/// A store that knows of none, and takes none.
macro_rules! no_remedies {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl tallymark::store::Remedies for $store {
            async fn halts(&self, _: &str) -> Result<Vec<tallymark::store::HaltRow>, tallymark::store::Error> {
                Ok(Vec::new())
            }

            async fn write_halt(&self, _: &str, _: &tallymark::store::HaltRow) -> Result<(), tallymark::store::Error> {
                unreachable!("nothing halts here")
            }

            async fn clear_halt(&self, _: &str, _: tallymark::item::Lane) -> Result<(), tallymark::store::Error> {
                unreachable!("nothing halts here")
            }

            async fn remedies(&self, _: &str) -> Result<Vec<tallymark::store::RemedyRow>, tallymark::store::Error> {
                Ok(Vec::new())
            }

            async fn record_remedy(
                &self,
                _: &str,
                _: &tallymark::store::RemedyRow,
            ) -> Result<(), tallymark::store::Error> {
                unreachable!("nothing is remedied here")
            }
        }
    };
}

/// A store that hands them on to the one in its field.
macro_rules! remedies_of {
    ($store:ty, $inner:ident) => {
        #[async_trait::async_trait]
        impl tallymark::store::Remedies for $store {
            async fn halts(&self, topic: &str) -> Result<Vec<tallymark::store::HaltRow>, tallymark::store::Error> {
                self.$inner.halts(topic).await
            }

            async fn write_halt(
                &self,
                topic: &str,
                halt: &tallymark::store::HaltRow,
            ) -> Result<(), tallymark::store::Error> {
                self.$inner.write_halt(topic, halt).await
            }

            async fn clear_halt(
                &self,
                topic: &str,
                lane: tallymark::item::Lane,
            ) -> Result<(), tallymark::store::Error> {
                self.$inner.clear_halt(topic, lane).await
            }

            async fn remedies(&self, topic: &str) -> Result<Vec<tallymark::store::RemedyRow>, tallymark::store::Error> {
                self.$inner.remedies(topic).await
            }

            async fn record_remedy(
                &self,
                topic: &str,
                remedy: &tallymark::store::RemedyRow,
            ) -> Result<(), tallymark::store::Error> {
                self.$inner.record_remedy(topic, remedy).await
            }
        }
    };
}

pub(crate) use {no_remedies, remedies_of};
