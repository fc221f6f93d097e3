"""Objects in a bucket of S3, or of a store that speaks its protocol.

Requests travel on the event loop over connections of our own (docs/adr/0009-an-http-client-of-our-own.md); botocore
finds credentials and the endpoint, and signs. From the bottom up:

    heads        the heads of requests and of usual answers
    connection   one HTTP/1.1 connection: a request out, its answer in
    pool         connections to one server, made, kept and dropped
    documents    the XML of answers
    errors       what can go wrong, and what an answer says of it
    retries      how often and how soon to try again
    settings     what the URL says
    credentials, endpoint, signing    the parts of botocore that are used
    client       one operation: signed, sent, repeated, counted
    ranges       a range that is read over several answers
    store        the object store
    probe        what a bucket can do, seen at start
    start        what is said when a start fails
"""
