package middleware

// RetryHedge is what Client makes of a Retry and a Hedge.
var RetryHedge = retryHedge
