package endpoint

// TakeRetries is asked by middleware that makes more than one attempt of a call, such as retry and hedge, before its first
// one. It reports true once for each call and all of its attempts: the outermost such middleware takes charge, the
// others pass through, so that attempts never multiply. It is safe for concurrent use.
func (c *Call) TakeRetries() bool { return !c.root.taken.Swap(true) }
