#[subscribers(manual)]
impl<T> Projection<T>
where
    T: Store + Send + Sync + 'static,
{
    #[subscribe("orders.created")]
    async fn apply(&self, order: Order<Self>) -> Result<(), T::Error> {
        self.store.apply(order).await
    }
}
