"""A page in the browser and an API that draft reports with one loaded model."""
