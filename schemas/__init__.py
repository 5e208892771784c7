"""The log's vocabulary: Avro schemas, the codec and the header names."""
