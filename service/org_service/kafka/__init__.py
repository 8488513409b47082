"""What several roles ask of Kafka, and no client of ours has a call for."""
