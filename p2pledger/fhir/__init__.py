"""Reading FHIR R4 records as they were received: their exact bytes, their dates, patients, classes and labels."""
