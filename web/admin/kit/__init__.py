"""What every admin route is built from: route groups, parameters, schemas, the context. Knows no topic."""
